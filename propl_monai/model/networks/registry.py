"""The networks by name, one line each."""

from __future__ import annotations

from propl_monai.errors import unknown
from propl_monai.model.network import ProPL
from propl_monai.model.networks.base import Segmenter
from propl_monai.model.networks.clip_universal import ClipUniversal
from propl_monai.model.networks.dodnet import DoDNet
from propl_monai.model.networks.film import Film
from propl_monai.model.networks.library import LibraryNetwork
from propl_monai.model.networks.meduniseg import MedUniSeg
from propl_monai.model.networks.meduniseg_star import MedUniSegStar
from propl_monai.model.networks.uniseg import UniSeg
from propl_monai.model.networks.vclipseg import VCLIPSeg
from propl_monai.model.networks.versemi import VerSemi

_ALL = (ProPL, Film, DoDNet, ClipUniversal, VerSemi, VCLIPSeg, UniSeg, MedUniSeg, MedUniSegStar, LibraryNetwork)
NETWORKS: dict[str, type[Segmenter]] = {network.name: network for network in _ALL}


def network_class(name: str, where: str = "network") -> type[Segmenter]:
    """The network of a name; `where` says who asks for it."""
    if name not in NETWORKS:
        raise unknown(where, "network", name, NETWORKS)
    return NETWORKS[name]
