"""Synthetic people and their enrolments: Brazilian names, CPFs with valid check digits; the same seed, the same people.

Nobody real: names and numbers are drawn by chance.
"""
import datetime
import random

FIRST = """Ana Maria João José Antônio Francisco Carlos Paulo Pedro Lucas Luiz Marcos Luís Gabriel Rafael Daniel Marcelo
Bruno Eduardo Felipe Raimundo Rodrigo Manoel Mateus André Fernando Fábio Leonardo Gustavo Guilherme Leandro Tiago
Anderson Ricardo Márcio Jorge Sebastião Alexandre Roberto Edson Diego Vitor Sérgio Cláudio Matheus Thiago Geraldo
Adriano Luciano Júlio Renato Alex Vinícius Rogério Samuel Ronaldo Mário Flávio Igor Douglas Davi Jeferson Cícero Francisca
Antônia Adriana Juliana Márcia Fernanda Patrícia Aline Sandra Camila Amanda Bruna Jéssica Letícia Júlia Luciana Vanessa
Mariana Gabriela Vera Vitória Larissa Cláudia Beatriz Rita Luana Sônia Renata Eliane Josefa Simone Natália Cristiane Carla
Débora Rosângela Jaqueline Rosa Daniela Aparecida Marlene Terezinha Raimunda Andréia Fabiana Lúcia Raquel Ângela Rafaela
Joana Luzia Elaine Daniele Regina Daiane Alessandra Isabela Conceição Tatiane Sueli Inês""".split()
LAST = """Silva Santos Oliveira Souza Rodrigues Ferreira Alves Pereira Lima Gomes Ribeiro Carvalho Almeida Lopes Soares
Fernandes Vieira Barbosa Rocha Dias Nascimento Andrade Moreira Nunes Marques Machado Mendes Freitas Cardoso Ramos Gonçalves
Santana Teixeira Araújo Pinto Cavalcanti Moura Monteiro Batista Campos Correia Castro Cruz Farias Guimarães Leite Melo
Miranda Moraes Neves Pires Queiroz Rezende Sales Sampaio Siqueira Tavares Toledo Xavier Assunção Brandão""".split()
COURSES = ["Administração", "Análise e Desenvolvimento de Sistemas", "Arquitetura e Urbanismo", "Biomedicina",
           "Ciências Contábeis", "Direito", "Educação Física", "Enfermagem", "Engenharia Civil",
           "Engenharia de Produção", "Farmácia", "Fisioterapia", "Gestão de Recursos Humanos", "Marketing",
           "Medicina Veterinária", "Nutrição", "Odontologia", "Pedagogia", "Psicologia", "Serviço Social"]
CITIES = [("São Paulo", "SP"), ("Rio de Janeiro", "RJ"), ("Belo Horizonte", "MG"), ("Salvador", "BA"),
          ("Fortaleza", "CE"), ("Curitiba", "PR"), ("Manaus", "AM"), ("Recife", "PE"), ("Porto Alegre", "RS"),
          ("Belém", "PA"), ("Goiânia", "GO"), ("São José dos Campos", "SP"), ("Ribeirão Preto", "SP"),
          ("Uberlândia", "MG"), ("Florianópolis", "SC"), ("Vitória", "ES"), ("João Pessoa", "PB")]
SHIFTS = ["Matutino", "Vespertino", "Noturno", "EAD"]
ORIGINS = ["site", "app", "call_center", "parceiro", "whatsapp"]


def cpf_check_digits(nine):
    """The two check digits for the first nine (a list of ints)."""
    digits = list(nine)
    for _ in range(2):
        weights = range(len(digits) + 1, 1, -1)
        digits.append(sum(d * w for d, w in zip(digits, weights)) * 10 % 11 % 10)
    return digits[9:]


def cpf_is_valid(text):
    digits = [int(c) for c in text if c.isdigit()]
    return len(digits) == 11 and len(set(digits)) > 1 and cpf_check_digits(digits[:9]) == digits[9:]


def _plain(name):
    return name.lower().translate(str.maketrans("áâãàéêíóôõúçñ ", "aaaaeeioooucn."[:14]))


class People:
    """An endless row of enrolments."""

    def __init__(self, seed=1):
        self.random = random.Random(seed)

    def cpf(self):
        while True:
            nine = [self.random.randrange(10) for _ in range(9)]
            if len(set(nine)) > 1:
                return "".join(map(str, nine + cpf_check_digits(nine)))

    def name(self):
        r = self.random
        return " ".join([r.choice(FIRST), *(r.choice(LAST) for _ in range(r.choice((1, 2, 2, 2, 3))))])

    def enrolment(self, number=None):
        """The columns of a subscription that the application fills: order_id, origin, cpf, payload (a dict)."""
        r = self.random
        name, cpf = self.name(), self.cpf()
        city, state = r.choice(CITIES)
        order = number if number is not None else r.randrange(10**6, 10**9)
        born = datetime.date(1965, 1, 1) + datetime.timedelta(days=r.randrange(43 * 365))
        payload = {
            "pedido": order,
            "aluno": {
                "nome": name, "cpf": cpf, "nascimento": born.isoformat(),
                "email": f"{_plain(name)}.{r.randrange(1000)}@example.com",
                "telefone": f"+55 {r.randrange(11, 99)} 9{r.randrange(10**7, 10**8)}",
                "endereco": {"cidade": city, "uf": state, "cep": f"{r.randrange(1000, 99999):05d}-{r.randrange(1000):03d}"},
            },
            "curso": {"nome": r.choice(COURSES), "turno": r.choice(SHIFTS), "semestre": "2027.1"},
            "bolsa": {"percentual": r.choice((20, 30, 40, 50, 60, 70)), "mensalidade": r.randrange(19900, 189900) / 100},
        }
        return {"order_id": order, "origin": r.choice(ORIGINS), "cpf": cpf, "payload": payload}

    def enrolments(self, count, first_number=1000001):
        for i in range(count):
            yield self.enrolment(first_number + i)
