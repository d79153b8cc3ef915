"""AWS Bedrock: Claude, Nova and every other model behind Converse and ConverseStream."""

from __future__ import annotations

from services.providers.aws import access as aws_access
from services.providers.aws import listing
from services.providers.aws.access import Options
from services.providers.aws.errors import error_from
from services.providers.aws.text.read import reader
from services.providers.aws.text.request import count_request_from, request_from
from services.providers.counts import count_of
from services.providers.text.base import Adapter

ADAPTER = Adapter(
    name="bedrock",
    options=Options,
    request_from=request_from,
    reader=reader,
    error_from=error_from,
    authority=aws_access.bedrock_authority,
    request_id_header="x-amzn-requestid",
    caches=True,
    count_request_from=count_request_from,
    count_from=count_of("inputTokens"),
    list_models=listing.list_models,
    check_request=aws_access.check_of("TEXT"),
)
