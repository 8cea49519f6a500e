/* Keys that sign checkpoints: a known answer, keys that are none, and signatures that do not hold. */

#include <errno.h>
#include <string.h>

#include "crypto/note_key.h"
#include "unit.h"

#define NAME "anubisd/x"
#define PUBLIC "anubisd/x+cc30522c+AddamAGCsQq31Uv+08lkBzoO4XLz2qYjJa8CGmj3B1Ea"
#define TEXT "one\ntwo\n"
#define LINE "\u2014 " NAME " " VALUE "\n"
#define SIGNATURE "\n" LINE
#define VALUE "zDBSLK9rp63Y8XFHK00iXL3IgjVtcpj3+ELHkBSv8hEF+NAqpYP0kz7oK8xAfJ+1+MhmNBYNaOR8wWOhtEyjegFrVAY="

/* The first key of RFC 8032, section 7.1; the signature is openssl's. */
static const char good_key[] = "-----BEGIN PRIVATE KEY-----\n"
                               "MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n"
                               "-----END PRIVATE KEY-----\n";
static const char rsa_key[] = "-----BEGIN PRIVATE KEY-----\n"
                              "MIIBVQIBADANBgkqhkiG9w0BAQEFAASCAT8wggE7AgEAAkEAnbaHuFmVnLqpmuNE\n"
                              "lZmcAZD6HXWftELsk4QCqrEjHm4D/3wb69OddWvW18om2LUDL1/9uFLbgusRbQ7k\n"
                              "7UPuGwIDAQABAkEAji+66pQxk2yiblbJRYqIoMzhAeBCzJStj00rzlIHFG22x3c9\n"
                              "94N4CbAyiSc+zXWsn1txOMC931kw0aQKbfuh6QIhAM84/Ci5FuSMMB1jRAgHoG79\n"
                              "8cC+VhxlS8e+0sCCyTwtAiEAwtYmSmvx372LlaS/ji2YaBBhVBUJaI9mVDFL704a\n"
                              "mGcCIEToXSmpisxLNcC//qJw7s+Z0GdYo8fjg1STxv9PPl2tAiEAs6yzMQxsyK1O\n"
                              "jRiaAi6wDr+UUer4ezFK57dyVGRNiF8CIA7GhUbQpscpk0ia6FvxZUoTgDceZUKF\n"
                              "LXbZMQffdDGU\n"
                              "-----END PRIVATE KEY-----\n";
static const char locked_key[] = "-----BEGIN ENCRYPTED PRIVATE KEY-----\n"
                                 "MIGbMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAjMxSz3aKxbbgICCAAw\n"
                                 "DAYIKoZIhvcNAgkFADAdBglghkgBZQMEASoEEN9L9vQudnUBaPOcN4SS7K8EQGeS\n"
                                 "6N+7nIMGH+GLZcH/G0eJ3J/CiVLU769l1zGKp2WtMTvjkSKYdK+xJn9/uSMObGQN\n"
                                 "G3ItJ8kj+EA89/7cCHk=\n"
                                 "-----END ENCRYPTED PRIVATE KEY-----\n";
static const char x25519_key[] = "-----BEGIN PRIVATE KEY-----\n"
                                 "MC4CAQAwBQYDK2VuBCIEIEhuvdSd0Y1q7q+A/GfF4AlfmJAiO4ZS09qcbBX4sSR/\n"
                                 "-----END PRIVATE KEY-----\n";
static const char public_key[] = "-----BEGIN PUBLIC KEY-----\n"
                                 "MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n"
                                 "-----END PUBLIC KEY-----\n";

TEST(test_known_answer)
{
    CLEANUP(note_key_freep) struct note_key *k = NULL;
    CLEANUP(strbuf_free) struct strbuf note = STRBUF_INIT(4096);
    struct error err;

    assert_int_equal(note_key_new(&k, good_key, &err), 0);
    CLEANUP(freep) char *public = note_key_public(k, NAME);
    assert_string_equal(public, PUBLIC);
    strbuf_adds(&note, TEXT);
    note_key_sign(k, NAME, &note);
    assert_string_equal(strbuf_str(&note), TEXT SIGNATURE);
    assert_true(note_is_signed(TEXT SIGNATURE, NAME, PUBLIC));
    assert_true(note_is_signed(TEXT "\n\u2014 other AAAA\nnot even one\n" NAME "\n" LINE, NAME, PUBLIC));
    note_key_free(NULL);
}

TEST(test_keys_that_are_none)
{
    static const struct {
        const char *pem, *words;
    } cases[] = {
        {"", "openssl genpkey"},
        {"hush", "Ed25519 private key in PEM"},
        {rsa_key, "not one of another kind"},
        {x25519_key, "another kind"},
        {public_key, "not the public one"},
        {locked_key, "no passphrase"},
        {"-----BEGIN PRIVATE KEY-----\nhush\n-----END PRIVATE KEY-----\n", "openssl genpkey"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct note_key *k = NULL;
        struct error err;
        assert_int_equal(note_key_new(&k, cases[i].pem, &err), -EINVAL);
        assert_null(k);
        assert_int_equal(strncmp(err.text, "must ", 5), 0);
        assert_non_null(strstr(err.text, cases[i].words));
        assert_null(strstr(err.text, "hush"));
    }
}

/* Whatever one byte becomes, and wherever the note ends, it holds no more; nothing is read beyond it. */
TEST(test_signatures_that_do_not_hold)
{
    CLEANUP(freep) char *note = xstrdup(TEXT SIGNATURE);
    CLEANUP(freep) char *public = xstrdup(PUBLIC);
    size_t len = strlen(note);

    for (size_t i = 0; i < len - 1; i++) {
        CLEANUP(freep) char *cut = xstrndup(note, i);
        assert_false(note_is_signed(cut, NAME, PUBLIC));
        note[i] ^= 1;
        assert_false(note_is_signed(note, NAME, PUBLIC));
        note[i] ^= 1;
    }
    for (size_t i = 0; i < strlen(PUBLIC); i++) {
        CLEANUP(freep) char *cut = xstrndup(public, i);
        assert_false(note_is_signed(note, NAME, cut));
        public[i] ^= 1;
        assert_false(note_is_signed(note, NAME, public));
        public[i] ^= 1;
    }
    assert_false(note_is_signed(note, "anubisd/y", PUBLIC));
    assert_true(note_is_signed(note, NAME, PUBLIC));
}

/* Keys of others, as openssl and our commands write them; anything else in the file is refused. */
TEST(test_public_keys_are_read)
{
    CLEANUP(freep) char *twice = xasprintf("%s%s", public_key, public_key);
    CLEANUP(freep) char *lines = xasprintf("%s\n\n%s\n", PUBLIC, PUBLIC);
    CLEANUP(freep) char *cut = xstrndup(PUBLIC, strlen(PUBLIC) - 1);
    CLEANUP(freep) char *mixed = xasprintf("%s%s\n", PUBLIC "\n", cut);
    const struct {
        const char *text;
        int count;
    } texts[] = {{public_key, 1},
                 {twice, 2},
                 {lines, 2},
                 {PUBLIC, 1},
                 {PUBLIC "\n", 1},
                 {"", -EINVAL},
                 {"\n", -EINVAL},
                 {cut, -EINVAL},
                 {mixed, -EINVAL},
                 {"hush", -EINVAL},
                 {"-----BEGIN PUBLIC KEY-----\n", -EINVAL}};

    for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
        struct note_public *keys = NULL;
        struct error err;
        assert_int_equal(note_publics_read(texts[i].text, &keys, &err), texts[i].count);
        for (int k = 0; k < texts[i].count; k++) {
            CLEANUP(freep) char *written = note_public_write(&keys[k], NAME);
            assert_string_equal(written, PUBLIC);
        }
        assert_true(texts[i].count > 0 || strstr(err.text, "public Ed25519 keys"));
        free(keys);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_answer),
        cmocka_unit_test(test_keys_that_are_none),
        cmocka_unit_test(test_signatures_that_do_not_hold),
        cmocka_unit_test(test_public_keys_are_read),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
