"""One home, one log: what was kept of one log under a topic's name is nonsense beside another log of that name.

States, checkpoints and the ledger's rows name their payments by topic, partition and offset.
"""

from __future__ import annotations

from pathlib import Path

from fraud_pipeline.adapters.checkpoint_store import CheckpointStore
from fraud_pipeline.adapters.embedded.stream_file import StreamFile
from fraud_pipeline.errors import SettingsError, StateError


def refuse_beside_file(path: Path, topic: str) -> None:
    """SettingsError where Kafka is to be read under a name that the home's file has used."""
    if not path.exists():
        return
    with StreamFile(path) as file:
        used = any(file.ends(topic))
    if used:
        raise SettingsError(
            f"{topic} of this home is in {path}: its states and its ledger are of that log, and Kafka is another one.",
            remedy="Give Kafka's topics another FRAUD_TOPIC_PREFIX, or take another FRAUD_HOME and ledger.",
        )


def refuse_others_states(path: Path, topic: str, group: str, checkpoints: CheckpointStore) -> None:
    """StateError where states of the topic are kept, and no scorer has read this file: they are of another log."""
    with StreamFile(path) as file:
        begun = any(file.position(group, topic, partition) is not None for partition in range(len(file.ends(topic))))
    if not begun and checkpoints.names(f"stream/{topic}"):
        raise StateError(
            f"{checkpoints.url} keeps states of {topic}, and they are of another log than {path}: it was never scored.",
            remedy="Restore the file, or name the Kafka of those states, or take another FRAUD_TOPIC_PREFIX or FRAUD_HOME.",
        )
