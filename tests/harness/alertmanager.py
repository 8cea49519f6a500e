"""Prometheus's Alertmanager, the real one, on loopback."""
import json
import shutil
import urllib.request

from .postgres import Unavailable
from .processes import Child, free_port, scratch_folder, wait_for

CONFIG = """route:
  receiver: people
  group_by: [alertname, integration_id]
  group_wait: 0s
  group_interval: 1s
  repeat_interval: 1h
receivers:
- name: people
  webhook_configs:
  - url: {url}
    send_resolved: true
"""


class RealAlertmanager:
    """It notifies `url`. kill() takes all that it knows with it; start() is a new one at the same address."""

    def __init__(self, url):
        program = shutil.which("prometheus-alertmanager")
        if not program:
            raise Unavailable("prometheus-alertmanager is not installed")
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.program, self.receiver, self.child = program, url, None

    def start(self):
        folder = scratch_folder()
        with open(f"{folder}/alertmanager.yml", "w", encoding="ascii") as f:
            f.write(CONFIG.format(url=self.receiver))
        self.child = Child([self.program, f"--config.file={folder}/alertmanager.yml", f"--storage.path={folder}/data",
                            f"--web.listen-address=127.0.0.1:{self.port}", "--cluster.listen-address="], folder=folder)
        self.child.start()
        wait_for(lambda: self.alerts() is not None, 60, lambda: f"Alertmanager to answer:\n{self.child.tail()}")
        return self

    def alerts(self):
        """Those that fire, as its API shows them."""
        with urllib.request.urlopen(f"{self.url}/api/v2/alerts", timeout=10) as answer:
            return json.load(answer)

    def kinds(self):
        return sorted(alert["labels"]["kind"] for alert in self.alerts())

    def kill(self):
        self.child.kill9()
        self.child.close()
