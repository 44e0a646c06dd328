#!/usr/bin/env python3
"""bench/scale.py: what an event and a row cost as the table grows, how long a cold start takes, and a kill -9.

Every impression brings 24 values that nobody has seen (uniform over 10^12), the worst case for a table. The network is
small (2 experts of 32), so that rows are what is measured. At each size: trainer CPU and wall time per event over a further
stretch of events, bytes per row on disk and in the scorer's memory, seconds until a stopped trainer reads again and a scorer
serves from its own store, and seconds from kill -9 under a stream to no lag. ROWS="1e6 1e7 5e7". Run it by `make bench-scale`."""
import os
import signal
import subprocess
import time

from system import System, report, wait_until

ROWS = [int(float(r)) for r in os.environ.get("ROWS", "1e6 1e7 5e7").split()]
STRETCH = int(os.environ.get("STRETCH", "20000"))
RECEIVED = 'sluice_trainer_events_total{state="received"}'
SMALL = ["model.experts=2", "model.expert_layers=[32]", "model.towers=[16]", "store.cache=256MiB", "training.batch_size=256",
         "publish.base_every=1d", "publish.base_every_bytes=1TiB"]


def caught_up(trainer, target):
    wait_until("%d events" % target, lambda: trainer.metrics().get(RECEIVED, 0) >= target, 7200)


def timed(start):
    t = time.time()
    p = start()
    return p, time.time() - t


def disk_bytes(path):
    return int(subprocess.check_output(["du", "-sb", path]).split()[0])


def main():
    print("| rows | CPU us an event | wall us an event | disk bytes a row | scorer bytes a row | trainer start s | scorer start s | kill to caught up s |\n"
          "|---|---|---|---|---|---|---|---|")
    figures, sent, seed = [], 0, 1
    with System(SMALL) as s:
        trainer = s.trainer()
        for rows in ROWS:
            while sent * 24 < rows:  # in pieces, so that the broker's disk is not the limit
                n = min((rows - sent * 24) // 24 + 1, 100000)
                sent_now = s.events(n, seed=seed, law="uniform", ids=10 ** 12)
                seed += 1
                sent += n
                events = trainer.metrics().get(RECEIVED, 0)
                wait_until("the events", lambda: trainer.metrics()["sluice_trainer_lag"] == 0, 7200)
            caught_up(trainer, events)
            c0, t0, e0 = trainer.cpu_seconds(), time.time(), trainer.metrics()[RECEIVED]
            more = s.events(STRETCH, seed=seed, law="uniform", ids=10 ** 12)
            seed, sent = seed + 1, sent + STRETCH
            caught_up(trainer, e0 + more)
            cpu, wall = (trainer.cpu_seconds() - c0) / more, (time.time() - t0) / more
            trainer.stop()
            disk = disk_bytes(s.dir + "/trainer")
            trainer, cold = timed(s.trainer)
            scorer = s.scorer()
            wait_until("the scorer", lambda: scorer.metrics()["sluice_scorer_version"] > 0 and scorer.metrics()["sluice_scorer_current"] == 1, 3600)
            have = scorer.metrics()["sluice_scorer_rows"]
            memory = scorer.metrics()["sluice_scorer_model_bytes"] / max(have, 1)
            scorer.stop()
            t = time.time()
            scorer = s.scorer()
            wait_until("a restarted scorer", lambda: scorer.metrics()["sluice_scorer_version"] > 0, 3600)
            warm = time.time() - t
            scorer.stop()
            # A stream that the trainer can follow with half of its time; killed in the middle.
            stream = s.events(10 ** 9, rate=.3 / wall, seed=seed, law="uniform", ids=10 ** 12, wait=False)
            seed += 1
            time.sleep(5)
            trainer.stop(signal.SIGKILL)
            t = time.time()
            trainer = s.trainer()
            wait_until("no lag", lambda: 0 <= trainer.metrics()["sluice_trainer_lag"] < 100, 3600)
            recovered = time.time() - t
            stream.terminate()
            stream.wait()
            wait_until("the rest", lambda: trainer.metrics()["sluice_trainer_lag"] == 0, 3600)
            sent = int(trainer.metrics()[RECEIVED])
            figures.append({"rows": have, "cpu_us": cpu * 1e6, "wall_us": wall * 1e6, "disk_bytes_per_row": disk / have,
                            "scorer_bytes_per_row": memory, "trainer_start_s": cold, "scorer_start_s": warm, "kill_to_caught_up_s": recovered})
            print("| %d | %.0f | %.0f | %.0f | %.0f | %.1f | %.1f | %.1f |" % tuple(figures[-1].values()), flush=True)
    report("scale", figures, [])


if __name__ == "__main__":
    main()
