"""What a service of providers loads that it may never need."""

from __future__ import annotations

import subprocess
import sys


def test_botocore_is_loaded_where_a_provider_is_at_aws() -> None:
    """The services of texts and of images load its 5 MB with the first provider of AWS that is configured."""
    program = (
        "import sys, services.text.__main__, services.image.__main__\n"
        "from services.catalogue import Provider\n"
        "from services.providers.aws.access import authority\n"
        "print('botocore' in sys.modules)\n"
        "provider = Provider(id='p', adapter='bedrock', makes='text', credentials={'api_key': 'KEY'})\n"
        "authority(provider, {'KEY': 'k'}, service='bedrock', region='us-east-1')\n"
        "print('botocore' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100, check=True)
    assert done.stdout.split() == ["False", "True"]
