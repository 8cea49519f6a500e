/* Commands show the class of an error, never the words of an institution. */
#include "ctl/ctl.h"
#include "unit.h"

#define NOT_SENT "not sent (its words are in the ledger)"
#define OTHER "other (its words are in the ledger)"

TEST(test_classes)
{
    static const struct {
        const char *error;
        int64_t http_status;
        const char *expected;
    } cases[] = {
        {"", 0, NULL},
        {"", 200, "HTTP 200"},
        {"HTTP 503: Maria da Silva", 503, "HTTP 503"},
        {"timeout", 0, "timeout"},
        {"timeout: Maria da Silva", 0, "timeout"},
        {"could not connect: Maria da Silva", 0, "could not connect"},
        {"TLS handshake or certificate: the certificate has expired", 0,
         "TLS handshake or certificate: the certificate has expired"},
        {"TLS handshake or certificate: the certificate has expired, Maria", 0,
         "TLS handshake or certificate"},
        {"TLS handshake or certificate: Maria da Silva", 0, "TLS handshake or certificate"},
        {"timeouts of Maria da Silva", 0, OTHER},
        {"Timeout: Maria da Silva", 0, OTHER},
        {"Maria da Silva: timeout", 0, OTHER},
        {"HTTP 503: Maria da Silva", 0, OTHER},
        /* Sentences of anubisd and of its trigger are shown, when nothing follows. */
        {"not sent: the daemon stopped", 0, "not sent: the daemon stopped"},
        {"not sent: the daemon stopped, Maria da Silva", 0, NOT_SENT},
        {"not sent: Maria da Silva", 0, NOT_SENT},
        {"not sent: no name server answers: see /etc/resolv.conf", 0,
         "not sent: no name server answers: see /etc/resolv.conf"},
        {"not sent: too many open descriptors: raise LimitNOFILE=", 0,
         "not sent: too many open descriptors: raise LimitNOFILE="},
        {"not sent: no route to the address: see \"ip route\"", 0,
         "not sent: no route to the address: see \"ip route\""},
        {"not sent", 0, OTHER},
        {"status set to failed by the application", 0, "status set to failed by the application"},
        {"its auth_token cannot be used: it is blank", 0, "its auth_token cannot be used: it is blank"},
        {"no credentials: its auth_token cannot be used: x", 0,
         "no credentials: its auth_token cannot be used: x"},
        {"status set to Maria by the application", 0, OTHER},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP(freep) char *class = ctl_error_class(cases[i].error, cases[i].http_status);
        if (cases[i].expected)
            assert_string_equal(class, cases[i].expected);
        else
            assert_null(class);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_classes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
