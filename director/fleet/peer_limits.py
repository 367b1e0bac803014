"""How much each peer may ask of the director: what is beyond is dropped undecoded, and counted."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

MOST_PEERS = 20_000
MUTE_AFTER = 20  # frames that are no messages, or not its own
MUTE_S = 10.0


@dataclass(slots=True)
class _Peer:
    tokens: float
    at_s: float
    bad: int = 0
    muted_until_s: float = 0.0


class PeerLimits:
    """Messages per second with a burst, by peer; a peer that sends nonsense is not listened to for a while."""

    def __init__(self, per_s: float, burst: float) -> None:
        self._per_s = per_s
        self._burst = burst
        self._forget_s = max(burst / per_s, MUTE_S)  # of a silence after which a peer is as good as a new one
        self._peers: OrderedDict[bytes, _Peer] = OrderedDict()  # the one that was silent longest first
        self.dropped = 0

    def __len__(self) -> int:
        """How many peers are remembered."""
        return len(self._peers)

    def allows(self, peer: bytes, now_s: float) -> bool:
        """Whether to look at a message of this peer, which came now."""
        known = self._known(peer, now_s)
        known.tokens = min(self._burst, known.tokens + (now_s - known.at_s) * self._per_s)
        known.at_s = now_s
        if known.tokens < 1 or now_s < known.muted_until_s:
            self.dropped += 1
            return False
        known.tokens -= 1
        return True

    def note_bad(self, peer: bytes, now_s: float) -> bool:
        """A frame of this peer was no message, or not its own. True where it is muted for that, from now on."""
        known = self._known(peer, now_s)
        known.bad += 1
        if known.bad < MUTE_AFTER:
            return False
        known.bad = 0
        known.muted_until_s = now_s + MUTE_S
        return True

    def _known(self, peer: bytes, now_s: float) -> _Peer:
        known = self._peers.get(peer)
        if known is None:
            self._forget(now_s)
            known = self._peers[peer] = _Peer(self._burst, now_s)
        self._peers.move_to_end(peer)
        return known

    def _forget(self, now_s: float) -> None:
        """Of those that have gone: each connection without a key is a peer of its own."""
        while self._peers:
            oldest = next(iter(self._peers.values()))
            if len(self._peers) < MOST_PEERS and now_s - oldest.at_s <= self._forget_s:
                return
            self._peers.popitem(last=False)
