/* SPDX-License-Identifier: Apache-2.0 */
/* Finding a region by address, and the arithmetic of runs, where 32 bits would not do. */
#include "worker/region.h"

#include "tests/unit/tap.h"

#define KIB	 UINT64_C(1024)
#define MIB	 (KIB * 1024)
#define GIB	 (MIB * 1024)
#define HALF_END (UINT64_C(1) << 63)

static struct region_table table;

static void
test_edges(void)
{
	const struct region rows[] = {
	    /* Not in the order of addresses; the second and third touch. */
	    {0x7f0000200000, 2 * MIB, 4 * MIB, 2 * MIB},
	    {0x100000, 64 * KIB, 0, 4096},
	    {0x110000, 4096, 64 * KIB, 4096},
	};

	region_table_init(&table, rows, 3);
	ok(table.nr == 3 && table.rows[0].host_addr == 0x100000 &&
		table.rows[1].host_addr == 0x110000 && table.rows[2].host_addr == 0x7f0000200000,
	    "sorted by address");
	ok(!region_find(&table, 0xfffff), "the byte before the first region");
	ok(region_find(&table, 0x100000) == &table.rows[0], "its first byte");
	ok(region_find(&table, 0x10ffff) == &table.rows[0], "its last byte");
	ok(region_find(&table, 0x110000) == &table.rows[1], "the neighbour's first byte");
	ok(region_find(&table, 0x110fff) == &table.rows[1], "the neighbour's last byte");
	ok(!region_find(&table, 0x111000), "the byte behind it");
	ok(!region_find(&table, 0x7f00001fffff), "the byte before the last region");
	ok(region_find(&table, 0x7f00003fffff) == &table.rows[2], "the last byte of the last");
	ok(!region_find(&table, 0x7f0000400000), "the byte behind it");
	ok(!region_find(&table, 0) && !region_find(&table, UINT64_MAX), "the ends of the world");
}

static void
test_empty(void)
{
	static const struct region none;

	region_table_init(&table, &none, 0);
	ok(!region_find(&table, 0) && !region_find(&table, 4096), "a table without a region");
}

static void
test_high(void)
{
	const struct region rows[] = {
	    {HALF_END - 8 * KIB, 8 * KIB, 0, 4096},
	    {HALF_END, 8 * KIB, 8 * KIB, 4096},
	    {UINT64_MAX - 8 * KIB + 1, 4 * KIB, 16 * KIB, 4096},
	};

	region_table_init(&table, rows, 3);
	ok(region_find(&table, HALF_END - 1) == &table.rows[0], "the byte before 2^63");
	ok(region_find(&table, HALF_END) == &table.rows[1], "the byte at 2^63");
	ok(!region_find(&table, HALF_END - 8 * KIB - 1), "the byte before them");
	ok(!region_find(&table, HALF_END + 8 * KIB), "the byte behind them");
	ok(region_find(&table, UINT64_MAX - 4 * KIB) == &table.rows[2], "close to 2^64");
	ok(!region_find(&table, UINT64_MAX), "the last byte of all");
}

/* The sum of both is the size at which a 32-bit or a signed number would break. */
static void
test_size(uint64_t size)
{
	const struct region rows[] = {
	    {0x7f0000000000, size, 3 * GIB, 4096},
	    {0x7f0000000000 + size, 4096, 3 * GIB + size, 4096},
	};
	uint64_t last = size / 4096 - 1;
	struct run run = {&table.rows[0], last, 1};

	region_table_init(&table, rows, 2);
	ok(region_find(&table, 0x7f0000000000 + size - 1) == &table.rows[0] &&
		region_find(&table, 0x7f0000000000 + size) == &table.rows[1] &&
		!region_find(&table, 0x7f0000000000 + size + 4096),
	    "edges of a region of %llu bytes", (unsigned long long)size);
	ok(run_host(&run) == 0x7f0000000000 + size - 4096 &&
		run_offset(&run) == 3 * GIB + size - 4096 &&
		run_map(&run) == 3 * GIB / 4096 + last && run_bytes(&run) == 4096 &&
		region_nr_pages(run.region) == last + 1,
	    "its last page");
	run = (struct run){&table.rows[0], 0, last + 1};
	ok(run_bytes(&run) == size, "all of it");
}

static void
test_huge_pages(void)
{
	const struct region rows[] = {{64 * GIB, 8 * GIB, 6 * MIB, 2 * MIB}};
	struct run run = {&table.rows[0], 4095, 1};

	region_table_init(&table, rows, 1);
	ok(run_host(&run) == 72 * GIB - 2 * MIB && run_offset(&run) == 8 * GIB + 4 * MIB &&
		run_bytes(&run) == 2 * MIB && run_map(&run) == 6 * MIB / 4096 + 4095 &&
		region_nr_pages(run.region) == 4096,
	    "the last huge page of 8 GiB");
}

static void
test_many(void)
{
	static struct region rows[PAGEMAP_MAX_REGIONS];
	unsigned right = 0;

	/* Against the order of addresses, one page apart. */
	for (uint32_t i = 0; i < PAGEMAP_MAX_REGIONS; i++)
		rows[i] = (struct region){
		    UINT64_C(0x10000000) + (PAGEMAP_MAX_REGIONS - i) * 8 * KIB,
		    4096,
		    i * 4096,
		    4096,
		};
	region_table_init(&table, rows, PAGEMAP_MAX_REGIONS);
	for (uint32_t i = 0; i < PAGEMAP_MAX_REGIONS; i++) {
		const struct region *found = region_find(&table, rows[i].host_addr + 1);

		right += found != NULL && found->offset == rows[i].offset &&
		    region_find(&table, rows[i].host_addr + 4096) == NULL;
	}
	is_int(right, PAGEMAP_MAX_REGIONS, "every region of a full table, and no gap");
}

int
main(void)
{
	test_edges();
	test_empty();
	test_high();
	test_size(2 * GIB - 4096);
	test_size(2 * GIB);
	test_size(4 * GIB - 4096);
	test_size(4 * GIB);
	test_size(4 * GIB + 4096);
	test_size(40 * GIB);
	test_huge_pages();
	test_many();
	return done();
}
