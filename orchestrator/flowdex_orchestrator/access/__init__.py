"""Who may call a gateway: keys, roles, limits of a key, tenants.

    keys.json --keys.KeyFile--> guard.Guard <-- who calls: gRPC, HTTP, WebSocket
                                     ^-------- what they ask for: the router, by roles.ENDPOINTS

`cli` is `flowdex keys`; `network` knows which addresses may be opened without keys.
"""

from __future__ import annotations

from flowdex_orchestrator.access.guard import CALLER, Caller, Grant, Guard, guard_of, keys_path
from flowdex_orchestrator.access.roles import Role

__all__ = ["CALLER", "Caller", "Grant", "Guard", "Role", "guard_of", "keys_path"]
