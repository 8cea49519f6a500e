/* Signatures of Standard Webhooks: known answers, what is no secret, and what no message says. */

#include <string.h>

#include "crypto/signature.h"
#include "unit.h"

#define KEY_24 "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
#define KEY_25 "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGA=="
#define KEY_26 "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBk="
#define KEY_64                                                                                               \
    "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+Pw=="
#define EXAMPLE "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, "{\"test\": 2432232314}"
#define EXAMPLE_24 "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="

static void sign(const char *secrets, const char *id, int64_t timestamp, const char *body,
                 char ret[SIGNATURE_TEXT])
{
    struct signer *s = NULL;
    struct error err;

    assert_int_equal(signer_new(&s, secrets, &err), 0);
    signer_sign(s, "another", 1, (struct bytes){"x", 1}, ret);
    signer_sign(s, id, timestamp, (struct bytes){body, strlen(body)}, ret);
    signer_free(s);
}

/* The first one is the example of the libraries of Standard Webhooks; the others are Python's hmac. */
TEST(test_known_answers)
{
    static const struct {
        const char *secrets, *id;
        int64_t timestamp;
        const char *body, *signature;
    } cases[] = {
        {KEY_24, EXAMPLE, EXAMPLE_24},
        {KEY_64, "4f0b1c1e-0000-8000-8000-000000000001", 0, "",
         "v1,e44hds67V4hfBXA+655k5LtOlmAuU1LAcYzOC+eOjlk="},
        {KEY_25, "a", -1, "x", "v1,hDZN7y+REZjBKGkfHBcVE9Ao7vm9sGFyPKKateZ1vXU="},
    };
    char text[SIGNATURE_TEXT];

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        sign(cases[i].secrets, cases[i].id, cases[i].timestamp, cases[i].body, text);
        assert_string_equal(text, cases[i].signature);
    }
}

/* Both sign, in their order, each as it would alone. */
TEST(test_two_secrets)
{
    static const char *const pairs[] = {KEY_26 " " KEY_24, "  " KEY_26 "   " KEY_24 " "};
    char both[SIGNATURE_TEXT], newer[SIGNATURE_TEXT];

    sign(KEY_26, EXAMPLE, newer);
    for (size_t i = 0; i < ARRAY_SIZE(pairs); i++) {
        sign(pairs[i], EXAMPLE, both);
        assert_int_equal(strlen(both), SIGNATURE_TEXT - 1);
        assert_memory_equal(both, newer, strlen(newer));
        assert_string_equal(both + strlen(newer), " " EXAMPLE_24);
    }
}

TEST(test_what_is_no_secret)
{
    static const struct {
        const char *secrets, *words;
    } cases[] = {
        {"", "must be whsec_ and base64"},
        {"  ", "must be whsec_ and base64"},
        {"MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "must be whsec_ and base64"},
        {"WHSEC_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "must be whsec_ and base64"},
        {KEY_24 "," KEY_26, "base64"},
        {KEY_24 "\n", "base64"},
        {KEY_24 " MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "must be whsec_ and base64"},
        {KEY_24 " " KEY_25 " " KEY_26, "one secret, or two"},
        {"whsec_", "24 to 64 bytes"},
        {"whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRY=", "24 to 64 bytes"},
        {"whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+P0A=",
         "24 to 64 bytes"},
        {"whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+P0AA"
         "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+P0AA",
         "24 to 64 bytes"},
        {"whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBk", "groups of four"},    /* no padding */
        {"whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXG===", "groups of four"},   /* too much of it */
        {"whsec_AAECAwQFBgcICQoLDA0ODxAREh=TFRYXGBk=", "groups of four"},   /* within */
        {"whsec_AAECAwQFBgcICQoLDA0ODxAREhMUF-YXG_k=", "groups of four"},   /* of RFC 4648, section 5 */
        {"whsec_\tAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBk=", "groups of four"}, /* EVP_DecodeBlock() skips it */
        {"whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBk\xc3", "groups of four"},
    };
    struct signer *s = NULL;
    struct error err;

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        assert_true(signer_new(&s, cases[i].secrets, &err) < 0);
        assert_null(s);
        assert_non_null(strstr(err.text, cases[i].words));
        assert_null(strstr(err.text, "AAEC"));
        assert_null(strstr(err.text, "MfKQ"));
    }
    signer_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_answers),
        cmocka_unit_test(test_two_secrets),
        cmocka_unit_test(test_what_is_no_secret),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
