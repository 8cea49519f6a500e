/* Does an address lie on the public Internet? Pure; any thread.
 *
 * Follows the IANA special-purpose address registries (RFC 6890 and its updates): what they do not call
 * globally reachable is not public. IPv6 addresses that carry an IPv4 one (mapped, NAT64, 6to4) are judged by
 * it. */
#pragma once

#include <sys/socket.h>

#include "base/util.h"

/* False for every family but IPv4 and IPv6, and for a length too short for its family. */
bool http_address_is_public(const struct sockaddr *address, size_t len);
