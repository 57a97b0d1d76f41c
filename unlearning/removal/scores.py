"""What the columns of a report mean."""

from __future__ import annotations

__all__ = ["SCORES", "Score"]

from dataclasses import dataclass


@dataclass(frozen=True)
class Score:
    """What a column means.

    Attributes
    ----------
    title : str
        For people.
    better : {"lower", "higher", "half", ""}
        Which way is good; "half" is nearest to one half.
    text : str
        What it is.
    """

    title: str
    better: str
    text: str


SCORES: dict[str, Score] = {
    "fid": Score("FID*", "lower", "Fréchet distance to images without the class"),
    "fid_debiased": Score("FID* debiased", "lower", "FID* minus its expected value for one law"),
    "fid_normalised": Score("normalised", "higher", "1 at the floor, 0 at the originals"),
    "kid": Score("KID*", "lower", "kernel distance, unbiased"),
    "cmmd": Score("CMMD*", "lower", "distance of mean unit vectors, times 1000"),
    "u_ids": Score("U-IDS*", "higher", "leave-one-out error of a linear classifier"),
    "u_ids_in_sample": Score("U-IDS* in-sample", "higher", "as published: error on training rows"),
    "u_ids_cv": Score("U-IDS* cross-fitted", "higher", "error of a linear SVM on rows left out"),
    "presence": Score("presence", "half", "AUC of the class in the hole against class-free places"),
    "removed_share": Score("removed share", "higher", "share of the presence that went away"),
    "residue_rate": Score("residue rate", "lower", "holes above the 95 % quantile, minus 0.05"),
    "p_gone": Score("p (gone)", "", "equivalence test that presence is one half"),
    "concept_fid": Score("concept FID*", "lower", "Fréchet distance of concept scores"),
    "concept_removal": Score("removal", "lower", "concept FID in the class alone"),
    "concept_collateral": Score("collateral", "lower", "concept FID in all other concepts"),
    "remove_score": Score("ReMOVE-style", "higher", "cosine of inside and outside features"),
    "cfd": Score("CFD", "lower", "deviation of hole and surroundings, and of new things in it"),
    "cfd_context": Score("CFD context", "lower", "deviation of the hole from its surroundings"),
    "coherence": Score("RC-S", "higher", "features inside and outside the hole, window by window"),
    "background_psnr": Score("background PSNR", "higher", "against the original outside the hole"),
    "background_max": Score("background change", "lower", "largest change outside the hole"),
    "fid_truth": Score("FID to truth", "lower", "Fréchet distance to the true removals"),
    "psnr_truth": Score("PSNR to truth", "higher", "whole image, dB"),
    "psnr_mask": Score("PSNR in mask", "higher", "object and two pixels around it, dB"),
    "psnr_effect": Score("PSNR of effects", "higher", "shadows, reflections outside the mask, dB"),
    "ssim_truth": Score("SSIM to truth", "higher", "whole image"),
    "ssim_mask": Score("SSIM in mask", "higher", "object and two pixels around it"),
    "lpips": Score("LPIPS to truth", "lower", "learned perceptual distance"),
    "lpips_mask": Score("LPIPS in mask", "lower", "object and two pixels around it"),
    "fid_original": Score("FID to original", "lower", "misleading: the object is in the reference"),
    "u_ids_original": Score("U-IDS to original", "higher", "misleading, as FID to original"),
    "kid_original": Score("KID to original", "lower", "misleading, as FID to original"),
    "cmmd_original": Score("CMMD to original", "lower", "misleading, as FID to original"),
    "p_ids_original": Score("P-IDS to original", "higher", "misleading, as FID to original"),
    "psnr_original": Score("PSNR to original", "higher", "misleading, as FID to original"),
}
"""Every column of a report."""
