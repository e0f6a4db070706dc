"""sglang-router in front of the servers: it chooses who generates; weights still go to each server."""

from gcpo_mcore.base.http_json import HttpFailure, delete
from gcpo_mcore.rollout.sglang.server import Server, ServerLost


class Router(Server):
    """The router's own address, asked to generate like a server, and its list of workers (version 0.3)."""

    def remove(self, server: Server) -> None:
        """The router sends nothing more to the server."""
        for worker in self._workers():
            if worker["url"].rstrip("/") == server.url:
                try:
                    delete(f"{self.url}/workers/{worker['id']}", self.deadline_s, self.headers, may_be_empty=True)
                except HttpFailure as failure:
                    raise ServerLost(str(failure), self) from None

    def admit(self, servers: list[Server]) -> None:
        """The router may send to all of these, whether it knew them or not."""
        known = {worker["url"].rstrip("/") for worker in self._workers()}
        for server in servers:
            if server.url not in known:
                own = {"api_key": server.key} if server.key else {}
                self.call("/workers", {"url": server.url, "worker_type": "regular", **own})

    def _workers(self) -> list[dict]:
        return self._read("/workers", "/workers")["workers"]
