/* The version of this build. The schema versions it works with: pg/schema.h. */
#pragma once

#define ANUBIS_VERSION "0.1.0"
