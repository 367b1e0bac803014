"""SHA-1 of the official measurement scripts of mlcommons/power-dev that the checkers of the rounds accept."""

from __future__ import annotations

from collections.abc import Mapping

Sources = Mapping[str, str]  # by path

_OF_1_0 = {
    "client.py": "d1e75cb4b26101220ebd242e584cf3ca5d8f1996",
    "lib/__init__.py": "da39a3ee5e6b4b0d3255bfef95601890afd80709",
    "lib/client.py": "d42bebf5b74cb6ff3997e2a6c68422afac111a28",
    "lib/common.py": "b0bad80d8fa328a7636027d4d66ff453f8dd7889",
    "lib/external/ntplib.py": "4da8f970656505a40483206ef2b5d3dd5e81711d",
    "lib/server.py": "2ed36471c7af565d6c8438b2134edad1d7ddf166",
    "lib/source_hashes.py": "4cedff274c661cb1504052018fd4f00dfbf624ef",
    "lib/summary.py": "0db15d783907aa92038281af4e465545c0648ddb",
    "lib/time_sync.py": "76051226ec89287839723352f4162aaa24e0546a",
    "server.py": "99e1310e3f76292aef1b8792ce6b8c82f1d44d8b",
    "tests/unit/test_server.py": "64f11775bfed35232a0e8bb9593c0ff992432c59",
    "tests/unit/test_source_hashes.py": "cb41a7261eaf7d94ba5c0aae9c523174f6204be3",
}
_OF_4_1 = {
    "__init__.py": "da39a3ee5e6b4b0d3255bfef95601890afd80709",
    "client.py": "33ca4f26368777ac06e01f9567b714a4b8063886",
    "lib/__init__.py": "da39a3ee5e6b4b0d3255bfef95601890afd80709",
    "lib/client.py": "ac2aa093c8e8bbc9569b9e2a3471bc64e58a2258",
    "lib/common.py": "611d8b29633d331eb19c9455ea3b5fa3284ed6df",
    "lib/external/__init__.py": "da39a3ee5e6b4b0d3255bfef95601890afd80709",
    "lib/external/ntplib.py": "4da8f970656505a40483206ef2b5d3dd5e81711d",
    "lib/server.py": "99303c836c683aa9017ec565104e636161d02acb",
    "lib/source_hashes.py": "60a2e02193209e8d392803326208d5466342da18",
    "lib/summary.py": "aa92f0a3f975eecd44d3c0cd0236342ccc9f941d",
    "lib/time_sync.py": "80894ef2389e540781ff78de94db16aa4203a14e",
    "server.py": "c3f90f2f7eeb4db30727556d0c815ebc89b3d28b",
    "tests/unit/__init__.py": "da39a3ee5e6b4b0d3255bfef95601890afd80709",
    "tests/unit/test_server.py": "948c1995d4008bc2aa6c4046a34ffa3858d6d671",
    "tests/unit/test_source_hashes.py": "00468a2907583c593e6574a1f6b404e4651c221a",
}
_OF_2_0 = {
    **_OF_4_1,
    "lib/client.py": "4c2b78fb4849a7e5b584ef792d82aaed20b17f57",
    "lib/common.py": "624d0c0acc7c39aaff3674f0b99d6a09da53d1dc",
    "lib/server.py": "59c9fb92908260d3e9f81a895c7aa009742275e4",
    "lib/time_sync.py": "3210db56eb0ff0df57bf4293dc4d4b03fffd46f1",
    "tests/unit/test_server.py": "99ae15aef722f2000ee6ed1ae1523637bf1ae42b",
}
_OF_2_0_TOO = {**_OF_2_0, "lib/server.py": "24ae49fb193809cf47f2c18b1c9c7c866244be4d"}
_OF_2_1 = {**_OF_2_0, "lib/server.py": "cda0cdfaee9bfa1249c64a7dd4f89b7bf1b279f0"}
_OF_3_1 = {**_OF_4_1, "lib/server.py": "c7af63c31bb2fbedea4345f571f6e3507d268ada"}

SOURCES_1_0: tuple[Sources, ...] = (_OF_1_0,)
SOURCES_2_0: tuple[Sources, ...] = (_OF_2_0, _OF_2_0_TOO)
SOURCES_2_1: tuple[Sources, ...] = (_OF_2_1, _OF_2_0, _OF_2_0_TOO)
SOURCES_3_1: tuple[Sources, ...] = (
    _OF_3_1,
    {**_OF_3_1, "lib/time_sync.py": "122eba67a9abc85635223e054def53be1367ade2"},
    {
        **_OF_4_1,
        "lib/client.py": "c146491755e219a28d440b31f83998dbd5532483",
        "lib/server.py": "8054263a14dedddcf8e1c01adc19596c21bad591",
        "lib/time_sync.py": "3210db56eb0ff0df57bf4293dc4d4b03fffd46f1",
    },
)
SOURCES_4_1: tuple[Sources, ...] = (_OF_4_1,)
SOURCES_5_0: tuple[Sources, ...] = (
    {
        **_OF_4_1,
        "lib/server.py": "9bc9a3b6b9b716520658ac175913bcbbdb354336",
        "lib/summary.py": "602a9fedfa503e5544d27ab3b0067f235047efc3",
    },
)
