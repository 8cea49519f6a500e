/* cmocka, and the form of a test. */
#pragma once

/* cmocka.h needs these before it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "base/util.h"

/* TEST(test_something) { … }: `*state` is the object that the test's setup function made, if it has one. */
#define TEST(name) static void name(void **state __attribute__((unused)))

/* A copy that ends where its allocation does, so that a sanitizer sees a read beyond it. */
static inline void *copy_of(const void *bytes, size_t len)
{
    void *copy = xmalloc(len);

    return len > 0 ? memcpy(copy, bytes, len) : copy;
}
