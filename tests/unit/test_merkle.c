/* Merkle trees: the vectors of Certificate Transparency, and every proof of small trees. */

#include <stdio.h>
#include <string.h>

#include "crypto/merkle.h"
#include "unit.h"

enum { SIZE_MAX_TRIED = 70 };

static struct sha256 *sha256;
static struct merkle_hash leaves[SIZE_MAX_TRIED];

static int setup(void **state)
{
    (void) state;
    sha256 = sha256_new();
    for (int i = 0; i < SIZE_MAX_TRIED; i++)
        leaves[i] = merkle_leaf(sha256, (struct bytes){(const char *) &i, sizeof(i)});
    return 0;
}

static int teardown(void **state)
{
    (void) state;
    sha256_free(sha256);
    return 0;
}

static void expect_hash(const struct merkle_hash *found, const char *hex)
{
    char text[2 * SHA256_BYTES + 1];

    for (size_t i = 0; i < SHA256_BYTES; i++)
        snprintf(text + 2 * i, 3, "%02x", found->bytes[i]);
    assert_string_equal(text, hex);
}

/* RFC 9162, 2.1.1, word by word. */
static struct merkle_hash defined(size_t first, size_t size)
{
    if (size == 1)
        return leaves[first];
    size_t k = 1;
    while (2 * k < size)
        k *= 2;
    struct merkle_hash left = defined(first, k), right = defined(first + k, size - k);
    return merkle_node(sha256, &left, &right);
}

static struct merkle_range grown(size_t size, merkle_full *full, void *userdata)
{
    struct merkle_range range = {0};

    for (size_t i = 0; i < size; i++)
        merkle_append(sha256, &range, &leaves[i], full, userdata);
    return range;
}

static int subtree(void *userdata, unsigned level, uint64_t index, struct merkle_hash *ret)
{
    const size_t *size = userdata;

    assert_true((index + 1) << level <= *size); /* only full ones are asked for */
    *ret = defined(index << level, UINT64_C(1) << level);
    return 0;
}

TEST(test_known_vectors)
{
    static const struct bytes entries[] = {
        {"", 0},
        {"\x00", 1},
        {"\x10", 1},
        {"\x20\x21", 2},
        {"\x30\x31", 2},
        {"\x40\x41\x42\x43", 4},
        {"\x50\x51\x52\x53\x54\x55\x56\x57", 8},
        {"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f", 16},
    };
    static const char *const roots[] = {
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    };
    struct merkle_range range = {0};

    for (size_t i = 0;; i++) {
        struct merkle_hash root = merkle_root(sha256, &range);
        expect_hash(&root, roots[i]);
        if (i == ARRAY_SIZE(entries))
            break;
        struct merkle_hash leaf = merkle_leaf(sha256, entries[i]);
        merkle_append(sha256, &range, &leaf, NULL, NULL);
    }
}

TEST(test_roots_are_as_defined)
{
    for (size_t size = 1; size <= SIZE_MAX_TRIED; size++) {
        struct merkle_range range = grown(size, NULL, NULL);
        struct merkle_hash root = merkle_root(sha256, &range), expected = defined(0, size);
        assert_memory_equal(root.bytes, expected.bytes, SHA256_BYTES);
        assert_int_equal(range.count, __builtin_popcountll(size));
    }
}

static void expect_full(void *userdata, unsigned level, uint64_t index, const struct merkle_hash *root)
{
    struct merkle_hash expected = defined(index << level, UINT64_C(1) << level);
    size_t *count = userdata;

    assert_memory_equal(root->bytes, expected.bytes, SHA256_BYTES);
    (*count)++;
}

/* Each full subtree is told of once: n leaves, n/2 pairs … */
TEST(test_full_subtrees)
{
    size_t count = 0;

    grown(64, expect_full, &count);
    assert_int_equal(count, 127);
}

TEST(test_every_inclusion)
{
    for (size_t size = 1; size <= SIZE_MAX_TRIED; size++) {
        struct merkle_hash root = defined(0, size), path[MERKLE_PATH_MAX];
        for (size_t leaf = 0; leaf < size; leaf++) {
            int count = merkle_inclusion(sha256, leaf, size, subtree, &size, path);
            assert_in_range(count, 0, MERKLE_PATH_MAX);
            size_t n = (size_t) count;
            assert_true(merkle_proves_inclusion(sha256, &leaves[leaf], leaf, size, path, n, &root));
            assert_false(merkle_proves_inclusion(sha256, &leaves[leaf], leaf, size, path, n + 1, &root));
            assert_false(merkle_proves_inclusion(sha256, &leaves[leaf], size, size, path, n, &root));
            for (size_t other = 0; other < size; other++)
                if (other != leaf) {
                    assert_false(merkle_proves_inclusion(sha256, &leaves[other], leaf, size, path, n, &root));
                    assert_false(merkle_proves_inclusion(sha256, &leaves[leaf], other, size, path, n, &root));
                }
            if (n > 0) {
                assert_false(merkle_proves_inclusion(sha256, &leaves[leaf], leaf, size, path, n - 1, &root));
                path[n / 2].bytes[5] ^= 1;
                assert_false(merkle_proves_inclusion(sha256, &leaves[leaf], leaf, size, path, n, &root));
            }
        }
    }
}

TEST(test_every_consistency)
{
    for (size_t size = 1; size <= SIZE_MAX_TRIED; size++) {
        struct merkle_hash root = defined(0, size), path[MERKLE_PATH_MAX];
        for (size_t from = 1; from <= size; from++) {
            struct merkle_hash before = defined(0, from), wrong = before;
            int count = merkle_consistency(sha256, from, size, subtree, &size, path);
            assert_in_range(count, 0, MERKLE_PATH_MAX);
            size_t n = (size_t) count;
            assert_true(merkle_proves_consistency(sha256, from, &before, size, &root, path, n));
            wrong.bytes[0] ^= 1;
            assert_false(merkle_proves_consistency(sha256, from, &wrong, size, &root, path, n));
            assert_false(merkle_proves_consistency(sha256, from, &before, size, &wrong, path, n));
            if (n > 0)
                assert_false(merkle_proves_consistency(sha256, from, &before, size, &root, path, n - 1));
        }
        assert_false(merkle_proves_consistency(sha256, 0, &root, size, &root, path, 0));
        assert_false(merkle_proves_consistency(sha256, size + 1, &root, size, &root, path, 0));
    }
}

static int broken(void *userdata, unsigned level, uint64_t index, struct merkle_hash *ret)
{
    (void) userdata, (void) level, (void) index, (void) ret;
    return -5;
}

TEST(test_errors_go_up)
{
    struct merkle_hash path[MERKLE_PATH_MAX];

    assert_int_equal(merkle_inclusion(sha256, 3, 10, broken, NULL, path), -5);
    assert_int_equal(merkle_consistency(sha256, 3, 10, broken, NULL, path), -5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_vectors),     cmocka_unit_test(test_roots_are_as_defined),
        cmocka_unit_test(test_full_subtrees),     cmocka_unit_test(test_every_inclusion),
        cmocka_unit_test(test_every_consistency), cmocka_unit_test(test_errors_go_up),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
