/* The circuit of an integration in words. */
#pragma once

#include "base/strbuf.h"
#include "ctl/store_ctl.h"

bool circuit_is_closed(const struct store_circuit_view *c);
/* What stands in the column STATE where it is not closed. */
const char *circuit_state_word(const struct store_circuit_view *c);
/* "circuit has been open since … (why); one subscription is tried at …". */
void circuit_add_words(struct strbuf *out, const struct store_circuit_view *c, int64_t now);
