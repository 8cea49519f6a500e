/* Prints the configuration's keys, one a line: name, default, words (see config_list_keys()).
 * For tests/check-conf-docs. */
#include <stdio.h>

#include "config/config.h"

int main(void)
{
    CLEANUP(strbuf_free) struct strbuf out = STRBUF_INIT(STRBUF_MAX_DEFAULT);

    config_list_keys(&out);
    return fputs(strbuf_str(&out), stdout) < 0 || fflush(stdout) != 0;
}
