"""From photo to prediction: encoding, denoising, decoding, fusing."""
