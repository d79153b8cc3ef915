"""Facts of providers' models, distilled from pinned packages into the document that ships."""
