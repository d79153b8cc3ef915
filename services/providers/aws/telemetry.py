"""Amazon's name in traces."""

from typing import Final

SYSTEMS: Final = {"bedrock": "aws.bedrock"}
