/* cmocka, and the form of a test. */
#pragma once

/* cmocka.h needs these before it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* TEST(test_something) { … }: `*state` is the object that the test's setup function made, if it has one. */
#define TEST(name) static void name(void **state __attribute__((unused)))
