"""Secrets that give themselves away: what every lane hands to the program, and what nobody may ever find again."""

from __future__ import annotations

# One for each kind of secret the program is told. The secrets lane searches everything all lanes have written for
# them, whole and in the encodings in which they might travel.
CANARIES = {
    "api token": "canary0token0of0the0provider0x7f3a",
    "webhook secret": "canary0webhook0secret0x91bc",
    "former webhook secret": "canary0former0secret0x55e1",
    "bucket secret": "canary0bucket0secret0x2d08",
    "database password": "canary0database0password0x6c44",
    "operator token": "canary0operator0token0x83fe",
    "source address": "canary0in0an0address0x1a9d",
}
