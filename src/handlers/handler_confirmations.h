/* The institution webhook: the table confirmations. Events "sent" say what is expected, messages of the topic
 * "confirmations" what institutions say; in any order. */
#pragma once

#include "consumers/handler.h"

extern const struct handler handler_confirmations;
extern const struct inbox inbox_confirmations;
