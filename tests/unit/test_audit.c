/* Entries and checkpoints of the audit log. */

#include <errno.h>
#include <string.h>

#include "crypto/audit_leaf.h"
#include "crypto/audit_note.h"
#include "unit.h"

#define INSTALLATION "7a1d2c3b-0000-8000-8000-000000000001"

TEST(test_entry_is_text)
{
    struct audit_entry entry = {
        .installation = INSTALLATION,
        .topic = "anubis.subscriptions.sent",
        .event_type = "sent",
        .partition = 2,
        .offset = 17,
        .sequence = INT64_MAX,
        .subscription_id = 4711,
        .created_at = 1764068379123456,
        .event_id = {0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde, 0xf0, 1, 2, 3, 4, 5, 6, 7, 8},
        .commitment = {0xab, [31] = 0xcd}};
    CLEANUP(strbuf_free) struct strbuf out = STRBUF_INIT(4096);

    audit_entry_print(&entry, &out);
    assert_string_equal(strbuf_str(&out),
                        "anubisd audit leaf 1\n" INSTALLATION
                        "\nanubis.subscriptions.sent\n2\n17\n9223372036854775807\n"
                        "12345678-9abc-def0-0102-030405060708\nsent\n4711\n0\n2025-11-25T10:59:39.123456Z\n"
                        "ab000000000000000000000000000000000000000000000000000000000000cd\n");
}

static const struct audit_tree_state trees[] = {
    {"anubis.subscriptions.created", 0, 0, {{0xe3, [31] = 0x55}}},
    {"anubis.subscriptions.sent", 2147483647, INT64_MAX, {{0, [31] = 1}}},
};

static char *note_of_all(void)
{
    struct strbuf out = STRBUF_INIT(4096);

    audit_note_begin(&out, INSTALLATION);
    for (size_t i = 0; i < ARRAY_SIZE(trees); i++)
        audit_note_add(&out, &trees[i]);
    return strbuf_take(&out);
}

TEST(test_note_is_read_back)
{
    CLEANUP(freep) char *note = note_of_all();
    CLEANUP(freep) struct audit_tree_state *found = NULL;
    size_t count;

    assert_int_equal(audit_note_read(note, INSTALLATION, &found, &count), 0);
    assert_int_equal(count, ARRAY_SIZE(trees));
    assert_memory_equal(found, trees, sizeof(trees));
    CLEANUP(freep) char *signed_note = xasprintf("%s\nanything", note);
    CLEANUP(freep) struct audit_tree_state *again = NULL;
    assert_int_equal(audit_note_read(signed_note, INSTALLATION, &again, &count), 0);
    assert_int_equal(count, ARRAY_SIZE(trees));
    assert_int_equal(audit_note_read(note, "7a1d2c3b-0000-8000-8000-000000000002", &again, &count), -EINVAL);
}

/* Whatever one byte becomes, nothing is read beyond the text; and no number or digit is read in two ways. */
TEST(test_notes_that_are_none)
{
    static const char bytes[] = "\n -+x0Ag\xff";
    CLEANUP(freep) char *note = note_of_all();
    size_t len = strlen(note);

    for (size_t cut = 0; cut < len; cut++) {
        CLEANUP(freep) char *text = xstrndup(note, cut);
        struct audit_tree_state *found = NULL;
        size_t count;
        if (audit_note_read(text, INSTALLATION, &found, &count) == 0)
            assert_true(text[cut - 1] == '\n');
        free(found);
    }
    for (size_t at = 0; at < len; at++) {
        for (size_t i = 0; i < sizeof(bytes); i++) {
            CLEANUP(freep) char *text = xstrdup(note);
            struct audit_tree_state *found = NULL;
            size_t count;
            text[at] = bytes[i];
            if (strcmp(text, note) != 0 && audit_note_read(text, INSTALLATION, &found, &count) == 0)
                assert_true(count != ARRAY_SIZE(trees) || memcmp(found, trees, sizeof(trees)) != 0);
            free(found);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_entry_is_text),
        cmocka_unit_test(test_note_is_read_back),
        cmocka_unit_test(test_notes_that_are_none),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
