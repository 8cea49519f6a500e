/* The version of this build, and the schema versions it works with. */
#pragma once

#define ANUBIS_VERSION "0.1.0"
