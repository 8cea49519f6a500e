/* Where a partition goes on. */
#include "unit.h"

#include "consumers/offset_decision.h"

TEST(test_decisions)
{
    static const struct {
        struct offset_facts facts;
        enum offset_decision decision;
    } cases[] = {
        /* next, first, end, committed, patient, doubted */
        {{-1, 0, 0, -1, true, false}, OFFSET_FIRST},    {{-1, 5, 9, -1, true, false}, OFFSET_FIRST},
        {{-1, 5, 9, 7, true, false}, OFFSET_FIRST},     {{-1, 5, 9, 5, true, false}, OFFSET_FIRST},
        {{-1, 5, 9, 9, true, false}, OFFSET_FIRST},     {{-1, 5, 9, 4, true, false}, OFFSET_FIRST},
        {{-1, 5, 9, 10, true, false}, OFFSET_FIRST},    {{0, 0, 0, -1, true, false}, OFFSET_AGREED},
        {{0, 0, 9, -1, true, false}, OFFSET_AGREED},    {{7, 0, 9, 3, true, false}, OFFSET_AGREED},
        {{9, 0, 9, 9, true, false}, OFFSET_AGREED},     {{5, 5, 9, -1, true, false}, OFFSET_AGREED},
        {{7, 0, 9, -1, true, false}, OFFSET_FORGOTTEN}, {{10, 0, 9, -1, true, false}, OFFSET_FORGOTTEN},
        {{3, 5, 9, 3, true, false}, OFFSET_GONE},       {{3, 5, 9, -1, false, false}, OFFSET_GONE},
        {{10, 0, 9, 10, true, false}, OFFSET_WAIT},     {{10, 0, 9, 10, false, false}, OFFSET_BEYOND},
        {{7, 0, 9, 7, true, true}, OFFSET_DOUBTED},     {{9, 0, 9, 9, false, true}, OFFSET_DOUBTED},
        {{5, 5, 9, 5, true, true}, OFFSET_AGREED},      {{3, 5, 9, 3, true, true}, OFFSET_GONE},
        {{10, 0, 9, 10, true, true}, OFFSET_WAIT},      {{10, 0, 9, 10, false, true}, OFFSET_BEYOND},
        {{7, 0, 9, -1, true, true}, OFFSET_FORGOTTEN},  {{-1, 5, 9, 7, true, true}, OFFSET_FIRST},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
        if (decide_offset(&cases[i].facts) != cases[i].decision)
            fail_msg("case %zu: %d instead of %d", i, decide_offset(&cases[i].facts), cases[i].decision);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {cmocka_unit_test(test_decisions)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
