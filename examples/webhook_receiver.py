"""Receive Moa's webhooks, check their signature, act once.

`MOA_WEBHOOK_SECRET=whsec_… python examples/webhook_receiver.py`

The secret: `curl -H "authorization: Bearer $MOA_API_KEY" $MOA_URL/v1/webhooks/default/secret`. To let a gateway on this
machine call it, start that with `MOA_EGRESS_ALLOW=127.0.0.1:9000`. Needs `pip install standardwebhooks`.
"""

from __future__ import annotations

import os
from http.server import BaseHTTPRequestHandler, HTTPServer

from standardwebhooks import Webhook, WebhookVerificationError

webhook = Webhook(os.environ["MOA_WEBHOOK_SECRET"])
seen: set[str] = set()


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        try:
            told = webhook.verify(body, dict(self.headers))
        except WebhookVerificationError:
            self.send_response(401)
        else:
            # A delivery that was not answered in time comes again, with the same id.
            if self.headers["webhook-id"] not in seen:
                seen.add(self.headers["webhook-id"])
                print(told)
            self.send_response(204)
        self.end_headers()


HTTPServer(("127.0.0.1", 9000), Handler).serve_forever()
