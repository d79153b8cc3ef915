"""Images from cloud providers: `moa.image.v1.ImageService` over one adapter a protocol."""
