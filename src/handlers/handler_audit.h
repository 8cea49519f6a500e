/* The audit log: every event is a leaf of the Merkle tree of its partition. See handler.h. */
#pragma once

#include "consumers/handler.h"

extern const struct handler handler_audit;
