# SPDX-License-Identifier: Apache-2.0
"""What `make bench` measures.  A measure is a function of the number of rounds that
returns rows; wrong words that a guest sees anywhere are added up."""
import concurrent.futures
import os
import resource
import select
import statistics
import tempfile
import threading
import time

import fuse
import handshake
import pagerd
import tap
import vmm

SEED = 11
DIRECTORY = "/dev/shm"
MIB = 1 << 20
PAGE = 4096
wrong = [0]


def row(name, value, unit, floor=None, ratio=None):
    if ratio is None and floor:
        ratio = value / floor
    return {"name": name, "value": value, "unit": unit, "floor": floor, "ratio": ratio}


def seen(answer):
    wrong[0] += answer.get("wrong", 0)
    return answer


def wrong_bytes():
    return row("wrong_bytes", wrong[0] * 8, "bytes")


class Bench:
    """One pagerd and one image on tmpfs."""

    def __init__(self, size, holes=0, directory=DIRECTORY, **options):
        self.pager = pagerd.Pagerd(roots=[directory], log_level="notice", **options)
        self.image = vmm.Image(os.path.join(directory, "pagerd-bench.%d" % os.getpid()),
                               seed=SEED, size=size, holes=holes)
        self.number = 0

    def __enter__(self):
        # The first session starts the worker and its mapping of the image; keep both warm.
        self.keeper, _ = self.served()
        return self

    def __exit__(self, *exc):
        self.keeper.kill()
        self.pager.destroy()
        os.unlink(self.image.path)

    def served(self, members=None, **options):
        self.number += 1
        name = "bench%d" % self.number
        guest = self.pager.restore(self.image, name, members=members or {}, **options)
        return guest, name

    def end(self, guest, name):
        guest.quit()
        self.pager.close_session(name)


def medians(samples):
    return [statistics.median(column) for column in zip(*samples)]


def one_guest(bench, command, floor, engine, members=None):
    if floor:
        guest = vmm.Vmm(bench.image, private_pager=True, engine=engine)
        answer = seen(guest.cmd(command))
        guest.quit()
        return answer
    guest, name = bench.served(members, engine=engine)
    answer = seen(guest.cmd(command))
    bench.end(guest, name)
    return answer


def rate(answer):
    return answer["touched"] / (answer["wall_us"] / 1e6)


ONE_PAGE = {"cluster_min_bytes": PAGE, "cluster_max_bytes": PAGE}


# A real guest where there can be one, and threads of the VMM, which fault twice as fast.
ENGINES = (("auto", ""), ("threads", "_threads"))


def demand_one(rounds):
    """Single faults of one guest, 4 KiB clusters, against the bare loop."""
    rows = []
    with Bench("256M") as bench:
        for engine, suffix in ENGINES:
            for order, tail in (("rand", suffix), ("seq", "_seq" + suffix)):
                command = "touch %s count=20000 noverify" % order
                ours, bare = [], []
                for _ in range(rounds):
                    a = one_guest(bench, command, False, engine, ONE_PAGE)
                    b = one_guest(bench, command, True, engine)
                    ours.append((a["p50_us"], a["p99_us"], rate(a)))
                    bare.append((b["p50_us"], b["p99_us"], rate(b)))
                ours, bare = medians(ours), medians(bare)
                rows += [row("demand_p50" + tail, ours[0], "us", bare[0]),
                         row("demand_p99" + tail, ours[1], "us", bare[1]),
                         row("demand_rate" + tail, ours[2], "1/s", bare[2])]
    return rows


# Where the scheduler puts eight threads makes more of a difference than what they do.
FOUR_TIMES = 3


def at_once(function, arguments):
    """The results of one call for each argument, all at the same time."""
    with concurrent.futures.ThreadPoolExecutor(max_workers=len(arguments)) as pool:
        return list(pool.map(function, arguments))


def all_at_once(guests, command):
    """Faults a second, all guests together."""
    begin = time.monotonic()
    results = at_once(lambda guest: seen(guest.cmd(command)), guests)
    return sum(r["touched"] for r in results) / (time.monotonic() - begin)


def demand_four(rounds):
    """Four guests at once, against a bare loop with as many threads."""
    rows = []
    with Bench("128M") as bench:
        bare_pager = vmm.BarePager(bench.image)
        for engine, suffix in ENGINES:
            command = "touch rand count=20000 noverify"
            ours, bare = [], []
            for _ in range(FOUR_TIMES * rounds):
                served = [bench.served(ONE_PAGE, engine=engine) for _ in range(4)]
                ours.append(all_at_once([guest for guest, _ in served], command))
                for guest, name in served:
                    bench.end(guest, name)
                guests = [vmm.Vmm(bench.image, socket=bare_pager.socket, engine=engine)
                          for _ in range(4)]
                bare.append(all_at_once(guests, command))
                for guest in guests:
                    guest.quit()
            rows.append(row("demand_rate_4" + suffix, statistics.median(ours), "1/s",
                            statistics.median(bare)))
        if bare_pager.quit() != 0:
            raise RuntimeError("the bare pager failed")
    return rows


def touch_all(rounds):
    """A guest touches every page of a warm image once; the floor maps the file itself."""
    ours, bare = [], []
    with Bench("256M") as bench:
        for _ in range(rounds):
            guest, name = bench.served()
            ours.append(seen(guest.cmd("touch rand noverify"))["wall_us"] / 1000)
            bench.end(guest, name)
            guest = vmm.Vmm(bench.image, file=True)
            bare.append(seen(guest.cmd("touch rand noverify"))["wall_us"] / 1000)
            guest.quit()
    return [row("guest_touch_all", statistics.median(ours), "ms", statistics.median(bare))]


def sparse(rounds):
    """Bytes filled for each byte touched when 8 % of the pages are touched at random."""
    ratios = []
    with Bench("256M") as bench:
        for i in range(rounds):
            guest, name = bench.served()
            touched = seen(guest.cmd("touch rand count=%d seed=%d noverify"
                                     % (256 * MIB // PAGE * 8 // 100, i + 1)))["touched"]
            counters = bench.pager.show(name)["counters"]
            ratios.append((counters["pages_demand"] + counters["pages_zeroed"]) / touched)
            bench.end(guest, name)
    return [row("sparse_bytes_copied", statistics.median(ratios), "ratio", 1.0)]


def completed_mib_s(bench, touch):
    """Population of what `touch` leaves absent; MiB of the image a second."""
    guest, name = bench.served()
    if touch:
        seen(guest.cmd(touch))
    before = bench.pager.show(name)["counters"]
    begin = time.monotonic()
    bench.pager.complete(name)
    took = time.monotonic() - begin
    after = bench.pager.show(name)["counters"]
    seen(guest.cmd("verify"))
    guest.quit()
    filled = (after["pages_background"] - before["pages_background"]) * PAGE
    return (filled / MIB / took, took * 1000,
            after["image_bytes_read"] - before["image_bytes_read"])


def populate(rounds):
    """Completion of an image that is absent, half present, and present."""
    absent, half, present, bare = [], [], [], []
    size = 512
    with Bench("%dM" % size) as bench:
        for _ in range(rounds):
            absent.append(completed_mib_s(bench, None))
            guest = vmm.Vmm(bench.image, private_pager=True, bare_populate=256 * 1024)
            bare.append(guest.ready["populate_mib_s"])
            guest.quit()
        for _ in range(max(2, rounds // 2)):
            half.append(completed_mib_s(bench, "touch stride:2 count=%d noverify"
                                        % (size * MIB // PAGE // 2)))
            present.append(completed_mib_s(bench, "touch seq noverify"))
    floor = statistics.median(bare)
    return [row("populate_absent", medians(absent)[0], "MiB/s", floor),
            row("populate_half", medians(half)[0], "MiB/s", floor),
            row("populate_present_ms", medians(present)[1], "ms"),
            row("populate_present_bytes_read", medians(present)[2], "bytes")]


def sparse_population(rounds):
    """Completion of an image that is 90 % holes, beside one that has none, of one size."""
    full, holed = [], []
    with Bench("1G") as bench:
        sparse_image = vmm.Image(bench.image.path + ".sparse", seed=SEED, size="1G", holes=900)
        keeper = bench.pager.restore(sparse_image, "keeper")
        try:
            for _ in range(rounds):
                for image, took in ((bench.image, full), (sparse_image, holed)):
                    bench.number += 1
                    name = "bench%d" % bench.number
                    guest = bench.pager.restore(image, name, members={}, engine="threads")
                    begin = time.monotonic()
                    bench.pager.complete(name)
                    took.append((time.monotonic() - begin) * 1000)
                    seen(guest.cmd("verify"))
                    guest.quit()
        finally:
            keeper.kill()
            os.unlink(sparse_image.path)
    full, holed = statistics.median(full), statistics.median(holed)
    return [row("populate_sparse_ms", holed, "ms", full),
            row("populate_sparse_speedup", full / holed, "x", 1.0)]


def stuck_image(rounds):
    """Demand faults of a guest while the image of another is on storage that says nothing,
    beside the same with that other one idle."""
    try:
        fuse.needs()
    except tap.Skip as why:
        print("  skipped: %s" % why)
        return []
    alone, beside = [], []
    command = "touch rand count=20000 noverify"
    with Bench("256M") as bench, fuse.Image(bench.pager, size="16M", seed=SEED) as image:
        for _ in range(rounds):
            for is_stuck, p99 in ((False, alone), (True, beside)):
                bench.number += 1
                name = "stuck%d" % bench.number
                other = bench.pager.restore(image, name, engine="threads", vcpus=8)
                if is_stuck:
                    drop_cache(image.path)
                    image.pause()
                    other.send("touch rand seed=%d" % bench.number)
                    image.wait_held(8)
                p99.append(one_guest(bench, command, False, "threads", ONE_PAGE)["p99_us"])
                image.resume()
                if is_stuck:
                    seen(other.answer())
                bench.end(other, name)
    alone, beside = statistics.median(alone), statistics.median(beside)
    return [row("neighbour_p99_with_stuck_image", beside, "us", alone)]


def drop_cache(path):
    with open(path, "rb") as f:
        os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def completing(rounds):
    """What a guest that keeps touching feels while it is completed."""
    p50, p99, worst, over = [], [], [], []
    with Bench("512M") as bench:
        for _ in range(rounds):
            guest, name = bench.served()
            guest.cmd("start rand")
            bench.pager.complete(name)
            answer = seen(guest.cmd("stop"))
            p50.append(answer["p50_us"])
            p99.append(answer["p99_us"])
            worst.append(answer["max_us"])
            over.append(answer["over_5ms"])
            seen(guest.cmd("verify"))
            guest.quit()
    return [row("stall_while_completing_p50_ms", statistics.median(p50) / 1000, "ms"),
            row("stall_while_completing_p99_ms", statistics.median(p99) / 1000, "ms"),
            row("stall_while_completing_max_ms", statistics.median(worst) / 1000, "ms"),
            row("stall_while_completing_over_5ms", statistics.median(over), "stalls")]


def four_completions(rounds):
    """Four sessions completed at once, against four bare loops at once."""
    size, ours, bare = 256, [], []
    with Bench("%dM" % size) as bench:
        for _ in range(rounds):
            served = [bench.served() for _ in range(4)]
            begin = time.monotonic()
            at_once(bench.pager.complete, [name for _, name in served])
            ours.append(4 * size / (time.monotonic() - begin))
            for guest, _ in served:
                guest.quit()
            guests = at_once(lambda _: vmm.Vmm(bench.image, private_pager=True,
                                               bare_populate=256 * 1024), range(4))
            # The slowest of the four is done when all are.
            bare.append(4 * min(guest.ready["populate_mib_s"] for guest in guests))
            for guest in guests:
                guest.quit()
    return [row("complete_4", statistics.median(ours), "MiB/s", statistics.median(bare))]


def during_sweep(rounds):
    """Demand faults of a session while it is swept, beside the same faults without a sweep."""
    rows, idle, swept = [], [], []
    command = "touch rand count=4000 seed=3 noverify"
    with Bench("512M") as bench:
        for _ in range(rounds):
            answer = one_guest(bench, command, False, "threads", ONE_PAGE)
            idle.append((answer["p50_us"], answer["p99_us"], answer["max_us"]))
            guest, name = bench.served(ONE_PAGE, engine="threads")
            sweep = threading.Thread(target=bench.pager.complete, args=(name,))
            sweep.start()
            answer = seen(guest.cmd(command))
            sweep.join()
            faulted = bench.pager.show(name)["counters"]["pages_demand"]
            swept.append((answer["p50_us"], answer["p99_us"], answer["max_us"], faulted))
            guest.quit()
    idle, swept = medians(idle), medians(swept)
    for i, what in enumerate(("p50", "p99", "max")):
        rows.append(row("demand_%s_during_sweep" % what, swept[i], "us", idle[i]))
    rows.append(row("demand_faults_during_sweep", swept[3], "faults"))
    return rows


def create_to_serving(rounds):
    """From the request to a served guest, as its orchestrator sees it."""
    took = []
    with Bench("256M") as bench:
        for i in range(rounds * 20):
            with handshake.Memory(256 * MIB) as memory:
                begin = time.monotonic()
                session = bench.pager.create(bench.image.path, id="quick%d" % i)
                with memory.connect(session["socket_path"]):
                    bench.pager.wait("quick%d" % i, "serving")
                    took.append((time.monotonic() - begin) * 1000)
                bench.pager.close_session("quick%d" % i)
    return [row("create_to_serving_p50_ms", statistics.median(took), "ms"),
            row("create_to_serving_p99_ms", sorted(took)[len(took) * 99 // 100], "ms")]


def rss_kib(pid):
    with open("/proc/%d/status" % pid, encoding="ascii") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmRSS:"))


def cpu_ms(pid):
    with open("/proc/%d/stat" % pid, encoding="ascii") as f:
        fields = f.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")


def idle(_rounds):
    """Memory and CPU of processes that have nothing to do."""
    sessions, seconds = 100, 3
    # On disk: the pages of an image on tmpfs would be counted where they are mapped.
    with Bench("64M", directory=tempfile.gettempdir()) as bench:
        bench.keeper.quit()
        bench.pager.close_session("bench1")
        pids = [bench.pager.process.pid, bench.pager.worker_pid()]
        rows = [row("rss_idle_mib", sum(map(rss_kib, pids)) / 1024, "MiB")]
        held = []
        before = sum(map(rss_kib, pids))
        for i in range(sessions):
            memory = handshake.Memory(64 * MIB)
            session = bench.pager.create(bench.image.path, id="idle%d" % i)
            held.append((memory, memory.connect(session["socket_path"])))
            bench.pager.wait("idle%d" % i, "serving")
        rows.append(row("rss_per_session_kib", (sum(map(rss_kib, pids)) - before) / sessions,
                        "KiB"))
        used = [cpu_ms(pid) for pid in pids]
        select.select([], [], [], seconds)  # the quantity measured is what happens in it
        used = [cpu_ms(pid) - u for pid, u in zip(pids, used)]
        rows += [row("idle_cpu_supervisor", used[0] / seconds / 10, "%"),
                 row("idle_cpu_worker", used[1] / seconds / 10, "%")]
        for memory, connection in held:
            connection.close()
            memory.close()
    return rows


def timed_ms(function, *arguments):
    begin = time.monotonic()
    result = function(*arguments)
    return (time.monotonic() - begin) * 1000, result


def monitored(rounds):
    """What is asked of a pagerd that serves a thousand sessions."""
    sessions = 1000
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    held = []
    with Bench("1M") as bench:
        try:
            for i in range(sessions):
                memory = handshake.Memory(MIB)
                session = bench.pager.create(bench.image.path, id="many%d" % i)
                held.append((memory, memory.connect(session["socket_path"])))
                bench.pager.wait("many%d" % i, "serving")
            scrapes = [timed_ms(bench.pager.request, "GET", "/metrics") for _ in range(rounds * 3)]
            status = [timed_ms(bench.pager.ctl, "status") for _ in range(rounds * 3)]
        finally:
            for memory, connection in held:
                connection.close()
                memory.close()
    assert all(answer.returncode == 0 for _, answer in status)
    return [row("scrape_1000_ms", statistics.median(ms for ms, _ in scrapes), "ms"),
            row("scrape_1000_kib", len(scrapes[0][1].text) / 1024, "KiB"),
            row("status_1000_ms", statistics.median(ms for ms, _ in status), "ms")]


# --- Hot lists -----------------------------------------------------------------------

# 24 MiB of the image, at random: what a restore touches.
WORKING_SET = "touch rand count=%d seed=77 noverify" % (24 * MIB // PAGE)


class Listed(Bench):
    """An image on disk with the hot list of a guest that touched its working set."""

    def __enter__(self):
        super().__enter__()
        with open(self.image.path, "rb+") as f:
            os.fsync(f.fileno())
        self.list = self.image.path + ".list"
        guest, name = self.served({"record": {"path": self.list}}, engine="threads")
        seen(guest.cmd(WORKING_SET))
        self.pager.call("POST", self.pager.path(name, "/record"), {"stop": True})
        self.end(guest, name)
        return self

    def __exit__(self, *exc):
        os.unlink(self.list)
        super().__exit__(*exc)

    def warm(self):
        with open(self.image.path, "rb") as f:
            while f.read(MIB):
                pass

    def cool(self):
        with open(self.image.path, "rb") as f:
            os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def restored_ms(self, members, engine):
        """From the handshake until the guest has touched its working set: its touches are
        waiting when the VMM starts, so that the prefetch has no lead but the handshake's."""
        self.number += 1
        name = "bench%d" % self.number
        session = self.pager.create(self.image.path, id=name, **members)
        guest = vmm.Vmm(self.image, socket=session["socket_path"], wait=False, engine=engine)
        guest.send(WORKING_SET)
        guest.wait_ready()
        answer = seen(guest.answer())
        self.end(guest, name)
        return answer["wall_us"] / 1000


def prefetching(rounds):
    """A recorded working set at the next restore, against demand faults alone."""
    rows = []
    with Listed("512M", directory=tempfile.gettempdir()) as bench:
        for engine, suffix in ENGINES:
            for how, prepare in (("warm", bench.warm), ("cold", bench.cool)):
                ours, bare = [], []
                for _ in range(rounds):
                    prepare()
                    ours.append(bench.restored_ms({"hot_list": bench.list}, engine))
                    prepare()
                    bare.append(bench.restored_ms({"prefetch": "off"}, engine))
                rows.append(row("prefetch_%s%s" % (how, suffix), statistics.median(ours), "ms",
                                statistics.median(bare)))
    return rows


def scattered_list(bench):
    """Every other page of the second half of the image."""
    log = bench.image.path + ".log"
    pages = os.path.getsize(bench.image.path) // PAGE
    with open(log, "w", encoding="ascii") as f:
        f.writelines("%d\n" % (p * PAGE) for p in range(pages // 2, pages, 2))
    path = bench.image.path + ".half"
    done = bench.pager.ctl("hotlist", "convert", "--image", bench.image.path, log, path)
    os.unlink(log)
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    return path


def during_prefetch(rounds):
    """Demand faults outside of the list while it is replayed, beside the same alone."""
    idle, busy = [], []
    command = "touch seq count=4000 noverify"
    with Bench("512M") as bench:
        path = scattered_list(bench)
        for _ in range(rounds):
            answer = one_guest(bench, command, False, "threads", dict(ONE_PAGE, prefetch="off"))
            idle.append((answer["p50_us"], answer["p99_us"]))
            answer = one_guest(bench, command, False, "threads", dict(ONE_PAGE, hot_list=path))
            busy.append((answer["p50_us"], answer["p99_us"]))
        os.unlink(path)
    idle, busy = medians(idle), medians(busy)
    return [row("demand_p50_during_prefetch", busy[0], "us", idle[0]),
            row("demand_p99_during_prefetch", busy[1], "us", idle[1])]


def recording(rounds):
    """Demand faults of a session that is recorded, beside those of one that is not."""
    ours, bare = [], []
    with Bench("256M") as bench:
        path = bench.image.path + ".list"
        record = dict(ONE_PAGE, record={"path": path})
        command = "touch rand count=20000 noverify"
        for i in range(rounds * 4):
            # In turns first: what the one before leaves behind is not to favour either.
            for samples, members in ((ours, record), (bare, ONE_PAGE))[::1 if i % 2 else -1]:
                samples.append(one_guest(bench, command, False, "threads", members)["p50_us"])
        os.unlink(path)
    return [row("recording_overhead", statistics.median(ours), "us", statistics.median(bare))]


ALL = [demand_one, demand_four, touch_all, sparse, populate, sparse_population, stuck_image,
       completing, four_completions, during_sweep, create_to_serving, idle, monitored,
       prefetching, during_prefetch, recording]
