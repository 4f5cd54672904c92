"""The mask generator of Mask2Former, shared by FC-CLIP and MAFT+: pixel decoder and decoder."""
