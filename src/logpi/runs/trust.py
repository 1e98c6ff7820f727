"""Which code a run folder may name. A folder is data; to open it may import files that it names.

A folder that this user has made on this machine is signed with a key that nobody else can read.
What a stranger's folder names is imported only after a person has agreed, which signs it too.
"""

import hashlib
import hmac
import json
import os
import secrets
from pathlib import Path

import platformdirs

from logpi.core.user_files import is_file_source
from logpi.runs.settings import Settings

# Prefixes of environments that name no module; `vector:` may be followed by one.
_OWN_PREFIXES = ("gymnax:", "brax:", "jumanji:", "envpool:", "finite:")


def named_code(settings: Settings) -> list[str]:
    """The Python files and modules that opening a run imports because its settings name them."""
    options = [getattr(settings.algorithm, name, None) for name in ("network", "estimator")]
    named = [source for source in (*options, settings.wrapper) if source is not None]
    environment = settings.environment.removeprefix("vector:")
    is_own = environment.startswith(_OWN_PREFIXES)
    if is_file_source(environment) or (":" in environment and not is_own):
        named.append(environment)
    return named


def signature(settings: Settings) -> str | None:
    """What shows that this user trusts what the settings name; None without a place for the key."""
    key = _key()
    if key is None:
        return None
    text = json.dumps(named_code(settings))
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def is_trusted(settings: Settings, signed: object) -> bool:
    """Whether the settings name no code, or `signed` is this user's signature of them."""
    if not named_code(settings):
        return True
    own = signature(settings)
    return own is not None and isinstance(signed, str) and hmac.compare_digest(own, signed)


def _key() -> bytes | None:
    """The key of this user, made at the first call; None where there is no place for it."""
    path = Path(platformdirs.user_state_dir("logpi")) / "trust.key"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            made = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return path.read_bytes() or None
        with open(made, "wb") as file:
            file.write(secrets.token_bytes(32))
        return path.read_bytes()
    except OSError:
        return None
