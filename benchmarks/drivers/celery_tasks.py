"""The tasks of Celery: its workers and its client import this."""

import os

import work
from celery import Celery

app = Celery("tasks", broker=os.environ["PEER_BROKER"], backend=os.environ["PEER_RESULTS"])
app.conf.update(
    # Its guide "Optimizing": for many short tasks a large prefetch, "values like 50 or 150", "say 64, or 128".
    worker_prefetch_multiplier=128,
    broker_connection_retry_on_startup=True,
    result_expires=3600,
)
if folder := os.environ.get("PEER_QUEUE"):
    app.conf.broker_transport_options = {"data_folder_in": folder, "data_folder_out": folder}

command = app.task(work.command, name="command")
output = app.task(work.output, name="output")
nothing = app.task(work.nothing, name="nothing")
