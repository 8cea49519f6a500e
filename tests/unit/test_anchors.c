/* Checkpoints that were kept elsewhere, as the tools write them that read journals and topics. */
#include <errno.h>
#include <string.h>

#include "ctl/anchors.h"
#include "unit.h"

#define INSTALLATION "7a1d2c3b-0000-8000-8000-000000000001"
#define HEX "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
#define NOTE "anubisd audit checkpoint 1\n" INSTALLATION "\na.sent 0 17 " HEX "\n"
#define NOTE_JSON "anubisd audit checkpoint 1\\n" INSTALLATION "\\na.sent 0 17 " HEX "\\n"
#define SIGNATURE "\n\u2014 anubisd/" INSTALLATION " abc+\n\u2014 other def=\n"
#define SIGNED NOTE SIGNATURE
#define SAYS "audit log: checkpoint of 1020 leaves, SHA-256 " HEX

static const unsigned char digest[] = {0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa,
                                       0xbb, 0xcc, 0xdd, 0xee, 0xff, 0x00, 0x11, 0x22, 0x33, 0x44, 0x55,
                                       0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff};

/* Of each anchor its note, or "" for the digest above; with the line. */
static const struct {
    const char *text;
    struct {
        const char *note;
        size_t line;
    } anchors[3];
} taken[] = {
    {NOTE, {{NOTE, 1}}},
    {SIGNED, {{SIGNED, 1}}},
    /* kafka-console-consumer, of three messages; and with the line ends of another system */
    {NOTE "\n" SIGNED "\n" NOTE "\n", {{NOTE, 1}, {SIGNED, 5}, {NOTE, 12}}},
    {"anubisd audit checkpoint 1\r\n" INSTALLATION "\r\na.sent 0 17 " HEX "\r\n", {{NOTE, 1}}},
    /* kcat -J, audit head --json in one line and in several */
    {"{\"topic\":\"anubis.audit\",\"payload\":\"" NOTE_JSON "\"}\n{\"payload\":\"" NOTE_JSON "\"}\n",
     {{NOTE, 1}, {NOTE, 2}}},
    {"{\n  \"checkpoint\": 7,\n  \"note\": \"" NOTE_JSON "\"\n}\n", {{NOTE, 1}}},
    /* journalctl */
    {"-- Boot 3f --\nNov 27 09:30:00 host anubisd[1]: " SAYS "\n", {{"", 2}}},
    {SAYS ", signed by anubisd/x+1+y\n\n# mine\n" SAYS, {{"", 1}, {"", 4}}},
    {"{\"MESSAGE\":\"" SAYS "\",\"PRIORITY\":\"6\"}\n", {{"", 1}}},
    {SAYS "\n" NOTE SAYS "\n", {{"", 1}, {NOTE, 2}, {"", 5}}},
};

TEST(test_what_tools_write_is_read)
{
    for (size_t i = 0; i < ARRAY_SIZE(taken); i++) {
        struct anchors a = {0};
        size_t line = 99, count = 0;
        assert_int_equal(anchors_parse(taken[i].text, strlen(taken[i].text), &a, &line), 0);
        assert_int_equal(line, 0);
        while (count < ARRAY_SIZE(taken[i].anchors) && taken[i].anchors[count].note)
            count++;
        assert_int_equal(a.count, count);
        for (size_t n = 0; n < count; n++) {
            assert_int_equal(a.items[n].line, taken[i].anchors[n].line);
            if (*taken[i].anchors[n].note) {
                assert_string_equal(a.items[n].note, taken[i].anchors[n].note);
                continue;
            }
            assert_null(a.items[n].note);
            assert_memory_equal(a.items[n].digest, digest, sizeof(digest));
            assert_int_equal(a.items[n].leaves, 1020);
        }
        anchors_done(&a);
    }
}

/* Nothing is passed over that may have been meant. */
TEST(test_what_is_no_checkpoint_is_refused)
{
    static const struct {
        const char *text;
        size_t line;
    } refused[] = {
        {"", 0},
        {"# nothing\n", 0},
        {"hello\n", 1},
        {SAYS "\nhello\n", 2},
        {NOTE "hello\n", 4},
        {NOTE "\nhello\n", 5},
        {SIGNED "a.sent 0 17 " HEX "\n", 7},
        {"{\"payload\":7}\n", 1},
        {"{\"payload\":\"hello\"}\n", 1},
        {"{\"note\":null}\n", 1},
        {"{\n", 1},
        {"audit log: checkpoint of 7 leaves, SHA-256 0011\n", 1},
        {"audit log: checkpoint of -7 leaves, SHA-256 " HEX "\n", 1},
        {"audit log: checkpoint of leaves, SHA-256 " HEX "\n", 1},
        {"audit log: checkpoint of  leaves, SHA-256 " HEX "\n", 1},
        {"audit log: checkpoint of 7 leaves, SHA-256 x" HEX "\n", 1},
    };

    for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
        struct anchors a = {0};
        size_t line = 99;
        CLEANUP(freep) char *text = copy_of(refused[i].text, strlen(refused[i].text) + 1);
        assert_int_equal(anchors_parse(text, strlen(text), &a, &line), -EINVAL);
        assert_int_equal(line, refused[i].line);
        anchors_done(&a);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_tools_write_is_read),
        cmocka_unit_test(test_what_is_no_checkpoint_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
