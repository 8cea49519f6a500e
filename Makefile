# anubisd: GNU make, out of tree. `make help` lists the targets.
#
#   V=1          show the commands            WERROR=1       warnings are errors
#   BUILD=DIR    another build folder         NO_INSTALL=1   name missing packages instead of installing them
#   FULL=1       `make check` also installs and runs the heavy parts (real Kafka, systemd)
#   TEST=…       `make check` runs only these: tests/test_delivery.py::test_x, "-k 'drain or lease'" (several are fine)
#   UNIT=…       `make check` runs only these unit tests: gaps, "gaps event"
#   BENCH=…      `make bench` runs only these cases: throughput, "soak --requests 1000000" ("--help": all of them)
#   KAFKA=real   `make demo` with Apache Kafka   KEEP=1         `make demo` leaves everything running

VERSION := $(shell sed -n 's/^\#define ANUBIS_VERSION "\(.*\)"/\1/p' src/base/version.h)
BUILD   ?= build
# One name for a folder, however it was written: dependency files keep it.
override BUILD := $(patsubst $(CURDIR)/%,%,$(abspath $(BUILD)))
PYTHON  ?= /usr/bin/python3

PREFIX     ?= /usr
SYSCONFDIR ?= /etc
BINDIR     ?= $(PREFIX)/bin
SBINDIR    ?= $(PREFIX)/sbin
DATADIR    ?= $(PREFIX)/share
MANDIR     ?= $(DATADIR)/man
UNITDIR    ?= $(PREFIX)/lib/systemd/system
SYSUSERDIR ?= $(PREFIX)/lib/sysusers.d
TMPFILEDIR ?= $(PREFIX)/lib/tmpfiles.d
CATALOGDIR ?= $(PREFIX)/lib/systemd/catalog

LIBRARIES := libpq libcurl rdkafka libcjson libsystemd libconfig libssl libcrypto
TOOL_LIBS := libmicrohttpd
UNIT_LIBS := cmocka

OPT      ?= -O2 -g -D_FORTIFY_SOURCE=2
WARNINGS := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wformat=2 -Wundef -Wvla \
            -Wpointer-arith -Wwrite-strings -Wcast-qual -Wimplicit-fallthrough $(if $(WERROR),-Werror)
HARDEN   := -fstack-protector-strong -fPIE -fno-common
ALL_CFLAGS  = -std=gnu17 -D_GNU_SOURCE -pthread -Isrc -I$(BUILD)/generated $(WARNINGS) $(HARDEN) $(OPT) $(SANITIZE) \
              $(shell pkg-config --cflags $(LIBRARIES)) $(CFLAGS)
ALL_LDFLAGS = -pthread -pie -Wl,-z,relro,-z,now -Wl,--as-needed $(SANITIZE) $(LDFLAGS)
LIBS        = $(shell pkg-config --libs $(LIBRARIES)) -lm

MAINS     := src/anubisd.c src/anubisctl.c
SOURCES   := $(filter-out $(MAINS),$(wildcard src/*.c src/*/*.c))
OBJECTS   := $(SOURCES:%.c=$(BUILD)/%.o) $(BUILD)/generated/sql_files.o $(BUILD)/generated/sql/statements.o
ARCHIVE   := $(BUILD)/libanubis.a
BINARIES  := $(BUILD)/anubisd $(BUILD)/anubisctl
TOOLS     := $(patsubst tests/tools/%.c,$(BUILD)/tools/%,$(wildcard tests/tools/*.c))
UNIT_TESTS := $(patsubst tests/unit/%.c,$(BUILD)/unit/%,$(wildcard tests/unit/test_*.c))
SQL       := $(sort $(wildcard sql/*.sql)) $(sort $(wildcard sql/repeatable/*.sql))
STATEMENTS := $(sort $(wildcard sql/statements/*.sql))
C_FILES   := $(wildcard src/*.[ch] src/*/*.[ch] tests/unit/*.[ch] tests/tools/*.[ch])

# Missing libraries are named before anything is compiled; `make demo`, `check` and the like install them.
GOALS := $(or $(MAKECMDGOALS),all)
ifeq ($(filter demo check bench lint fuzz packages-%,$(GOALS)),)
ifneq ($(filter-out asan tsan coverage format uninstall clean help,$(GOALS)),)
WANTED  := $(LIBRARIES) $(if $(filter tools,$(GOALS)),$(TOOL_LIBS)) $(if $(filter unit,$(GOALS)),$(UNIT_LIBS))
MISSING := $(shell for name in $(WANTED); do pkg-config --exists $$name 2>/dev/null || echo $$name; done)
ifneq ($(MISSING),)
$(error pkg-config $(if $(shell command -v pkg-config),does not find,is missing, which finds) $(MISSING). \
    Run "sh .ci/packages $(if $(filter $(TOOL_LIBS) $(UNIT_LIBS),$(MISSING)),check,build)", which installs what is missing)
endif
endif
endif

# For targets that build other targets first. An explicit `make -j` stays in force.
SUBMAKE = $(MAKE) --no-print-directory $(if $(V),,-s) $(if $(filter -j% --jobserver%,$(MAKEFLAGS)),,-j$(shell nproc))

Q := $(if $(V),,@)
say = $(if $(V),,@printf '  %-7s %s\n' '$(1)' '$(2)')

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.PHONY: all tools unit objects demo check bench lint format asan tsan fuzz coverage install uninstall clean help \
        packages-check packages-lint packages-fuzz packages-demo

all: $(BINARIES) ## build anubisd and anubisctl
tools: $(TOOLS)  ## build the embedded broker and the sample institutions
unit: $(UNIT_TESTS) ## build the unit tests
objects: $(OBJECTS) $(MAINS:%.c=$(BUILD)/%.o)
# As a step of another target they do not print "Nothing to be done".
all tools unit: ; $(if $(filter-out 0,$(MAKELEVEL)),@:)

$(BUILD)/%.o: %.c | $(BUILD)/generated/sql/statements.h
	$(call say,CC,$<)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

# The programs contain the schema, so that they cannot meet the files of another release.
$(BUILD)/generated/sql_files.c: $(SQL) .ci/embed-sql
	$(call say,EMBED,sql/*.sql)
	$(Q)mkdir -p $(@D)
	$(Q)sh .ci/embed-sql --files $(SQL) >$@
$(BUILD)/generated/sql_files.o: $(BUILD)/generated/sql_files.c
	$(Q)$(CC) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

# They contain their statements, too.
$(BUILD)/generated/sql/statements.c $(BUILD)/generated/sql/statements.h: $(STATEMENTS) .ci/embed-sql
	$(call say,EMBED,$(@F))
	$(Q)mkdir -p $(@D)
	$(Q)sh .ci/embed-sql $(if $(filter %.h,$@),--header,--statements) $(STATEMENTS) >$@
$(BUILD)/generated/sql/statements.o: $(BUILD)/generated/sql/statements.c $(BUILD)/generated/sql/statements.h
	$(Q)$(CC) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

$(ARCHIVE): $(OBJECTS)
	$(call say,AR,$@)
	$(Q)rm -f $@ && $(AR) rcs $@ $^

$(BINARIES): $(BUILD)/%: $(BUILD)/src/%.o $(ARCHIVE)
	$(call say,LD,$@)
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $^ $(LIBS)

$(TOOLS): $(BUILD)/tools/%: $(BUILD)/tests/tools/%.o $(ARCHIVE)
	$(call say,LD,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $^ $(LIBS) $(shell pkg-config --libs $(TOOL_LIBS))

$(UNIT_TESTS): $(BUILD)/unit/%: $(BUILD)/tests/unit/%.o $(ARCHIVE)
	$(call say,LD,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $^ $(LIBS) $(shell pkg-config --libs $(UNIT_LIBS))

.SECONDARY:

packages-check packages-lint packages-fuzz:
	@sh .ci/packages $(@:packages-%=%)
packages-demo:
	@sh .ci/packages check $(if $(filter real,$(KAFKA)),kafka)

demo: packages-demo ## run the main job on this machine, from nothing to a summary
	+@$(SUBMAKE) all tools
	@ANUBIS_BUILD=$(BUILD) $(PYTHON) tests/demo.py

check: packages-check ## build and run every test this machine can run
	+@$(SUBMAKE) all tools unit
	@ANUBIS_BUILD=$(BUILD) $(PYTHON) tests/run-checks $(UNIT:%=--unit=%) $(TEST)

bench: packages-check ## measure throughput, latency, memory and CPU
	+@$(SUBMAKE) all tools
	@ANUBIS_BUILD=$(BUILD) $(PYTHON) tests/bench.py $(BENCH)

lint: packages-lint ## formatting, static analysis, layers, shell, man pages, documentation
	+@$(SUBMAKE) $(BUILD)/tools/list_keys
	@ANUBIS_BUILD=$(BUILD) sh tests/lint

format: ## lay the C sources out
	@command -v clang-format >/dev/null || { echo 'clang-format is missing; "sh .ci/packages lint" installs it.'; exit 1; }
	clang-format -i $(C_FILES)

asan: ## build/asan, with address and undefined-behaviour sanitizers
	+@$(SUBMAKE) BUILD=$(BUILD)/asan OPT='-O1 -g -fno-omit-frame-pointer' \
	    SANITIZE='-fsanitize=address,undefined -fno-sanitize-recover=undefined' all tools unit
tsan: ## build/tsan, with the thread sanitizer
	+@$(SUBMAKE) BUILD=$(BUILD)/tsan OPT='-O1 -g' SANITIZE=-fsanitize=thread all tools unit
fuzz: packages-fuzz ## look for answers that break their reader, for FUZZ_SECONDS (600)
	@mkdir -p $(BUILD)/fuzz/http_answer
	clang -std=gnu17 -D_GNU_SOURCE -O1 -g -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined -Isrc \
	    tests/fuzz/http_answer.c src/http/http_answer.c src/http/http_retry_after.c src/base/strbuf.c src/base/util.c -o $(BUILD)/fuzz/fuzz_http_answer
	$(BUILD)/fuzz/fuzz_http_answer -max_total_time=$(or $(FUZZ_SECONDS),600) -max_len=8192 -print_final_stats=1 \
	    -artifact_prefix=$(BUILD)/fuzz/ $(BUILD)/fuzz/http_answer tests/fuzz/http_answer
coverage: ## build/coverage, with gcov's counters
	+@$(SUBMAKE) BUILD=$(BUILD)/coverage OPT='-O0 -g' SANITIZE=--coverage all tools unit

install: all ## install below $(DESTDIR)$(PREFIX); an existing anubisd.conf stays
	install -D -m 755 $(BUILD)/anubisd $(DESTDIR)$(SBINDIR)/anubisd
	install -D -m 755 $(BUILD)/anubisctl $(DESTDIR)$(BINDIR)/anubisctl
	install -D -m 644 -t $(DESTDIR)$(DATADIR)/anubisd/sql $(filter-out sql/repeatable/%,$(SQL))
	install -D -m 644 -t $(DESTDIR)$(DATADIR)/anubisd/sql/repeatable $(filter sql/repeatable/%,$(SQL))
	install -D -m 644 -t $(DESTDIR)$(DATADIR)/doc/anubisd README.md etc/anubisd.conf
	install -D -m 644 -t $(DESTDIR)$(MANDIR)/man8 man/anubisd.8 man/anubisctl.8
	install -D -m 644 -t $(DESTDIR)$(MANDIR)/man5 man/anubisd.conf.5
	install -D -m 644 systemd/anubisd.sysusers.conf $(DESTDIR)$(SYSUSERDIR)/anubisd.conf
	install -D -m 644 systemd/anubisd.tmpfiles.conf $(DESTDIR)$(TMPFILEDIR)/anubisd.conf
	install -D -m 644 -t $(DESTDIR)$(CATALOGDIR) systemd/anubisd.catalog systemd/anubisd.pt_BR.catalog
	install -d $(DESTDIR)$(UNITDIR)
	sed 's,/usr/sbin/,$(SBINDIR)/,' systemd/anubisd.service >$(DESTDIR)$(UNITDIR)/anubisd.service
	chmod 644 $(DESTDIR)$(UNITDIR)/anubisd.service
	test -e $(DESTDIR)$(SYSCONFDIR)/anubisd.conf || \
	    install -D -m 640 etc/anubisd.conf $(DESTDIR)$(SYSCONFDIR)/anubisd.conf
	@if [ -z "$(DESTDIR)" ] && [ -d /run/systemd/system ]; then \
	    echo 'Now: systemd-sysusers; systemd-tmpfiles --create anubisd.conf; journalctl --update-catalog; systemctl daemon-reload'; \
	    echo 'Over an older one then: sudo -u anubisd anubisctl migrate; systemctl restart anubisd'; fi
uninstall: ## remove what install put there, but the configuration
	rm -f $(DESTDIR)$(SBINDIR)/anubisd $(DESTDIR)$(BINDIR)/anubisctl $(DESTDIR)$(UNITDIR)/anubisd.service
	rm -f $(DESTDIR)$(MANDIR)/man8/anubisd.8 $(DESTDIR)$(MANDIR)/man8/anubisctl.8 $(DESTDIR)$(MANDIR)/man5/anubisd.conf.5
	rm -f $(DESTDIR)$(SYSUSERDIR)/anubisd.conf $(DESTDIR)$(TMPFILEDIR)/anubisd.conf
	rm -f $(DESTDIR)$(CATALOGDIR)/anubisd.catalog $(DESTDIR)$(CATALOGDIR)/anubisd.pt_BR.catalog
	rm -rf $(DESTDIR)$(DATADIR)/anubisd $(DESTDIR)$(DATADIR)/doc/anubisd

clean: ## remove the build folder
	rm -rf $(BUILD)

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20
	@sed -n 's/^#  /  /p' Makefile

-include $(OBJECTS:.o=.d) $(MAINS:%.c=$(BUILD)/%.d) $(wildcard $(BUILD)/tests/*/*.d)
