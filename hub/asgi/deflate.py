"""The handshake's side of permessage-deflate (RFC 7692): what is agreed must allow one deflated frame for all clients.

So nobody keeps a context: frames of the hub each stand alone (`server_no_context_takeover`, which a server may answer unasked), and
so do the client's, which spares a window for each connection. A client that can inflate only a smaller window than the
shared frames use gets none. What clients deflate is inflated by `websockets`, up to the bound of a message: beyond it 1009.
"""

from __future__ import annotations

from collections.abc import Sequence

from websockets.exceptions import NegotiationError
from websockets.extensions import Extension
from websockets.extensions.permessage_deflate import PerMessageDeflate, ServerPerMessageDeflateFactory
from websockets.typing import ExtensionParameter

from hub.core.deflate import WINDOW_BITS

__all__ = ["SharedDeflate"]


class SharedDeflate(ServerPerMessageDeflateFactory):
    """Answers offers of permessage-deflate."""

    def __init__(self) -> None:
        super().__init__(
            server_no_context_takeover=True,
            client_no_context_takeover=True,
            server_max_window_bits=WINDOW_BITS,
        )

    def process_request_params(
        self, params: Sequence[ExtensionParameter], accepted_extensions: Sequence[Extension]
    ) -> tuple[list[ExtensionParameter], PerMessageDeflate]:
        """As websockets has it; the offer is passed over that asks for a smaller window than ours."""
        answer, extension = super().process_request_params(params, accepted_extensions)
        if extension.local_max_window_bits < WINDOW_BITS:
            raise NegotiationError(f"server_max_window_bits below {WINDOW_BITS}")
        return answer, extension
