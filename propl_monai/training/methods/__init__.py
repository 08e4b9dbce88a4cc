"""Training methods, one file each, by name.

A new method is a subclass of `methods.base.Method` in a file of its own, a line in `METHODS`, and a config that names
its class as `method_def`; the tests of the registry then cover it. The trainer knows no method by name.

In: a network and batches. Out: losses. Must not know: files, validation, or one another.

Tested elsewhere: `base`, `supervised` and `weak_to_strong` by `test_method_registry`, `test_propl` and `test_mean_teacher`.
"""

from __future__ import annotations

from propl_monai.training.methods.augseg import AugSegMethod
from propl_monai.training.methods.base import Method
from propl_monai.training.methods.bcp import BCPMethod
from propl_monai.training.methods.cps import CPSMethod
from propl_monai.training.methods.csc_pa import CSCPAMethod
from propl_monai.training.methods.ddfp import DDFPMethod
from propl_monai.training.methods.deep_supervision import DeepSupervisionMethod
from propl_monai.training.methods.fixmatch import FixMatchMethod
from propl_monai.training.methods.mean_teacher import MeanTeacherMethod
from propl_monai.training.methods.meduniseg_star import MedUniSegStarMethod
from propl_monai.training.methods.propl import ProPLMethod
from propl_monai.training.methods.propl_views import ProPLViewsMethod
from propl_monai.training.methods.st_pp import STPPMethod
from propl_monai.training.methods.supervised import SupervisedMethod
from propl_monai.training.methods.u2pl import U2PLMethod
from propl_monai.training.methods.unimatch import UniMatchMethod
from propl_monai.training.methods.unimatch_v2 import UniMatchV2Method
from propl_monai.training.methods.univ_full import UnivFullMethod
from propl_monai.training.methods.vclipseg import VCLIPSegMethod
from propl_monai.training.methods.versemi import VerSemiMethod

METHODS: dict[str, type[Method]] = {
    method.name: method
    for method in (
        ProPLMethod,
        SupervisedMethod,
        MeanTeacherMethod,
        ProPLViewsMethod,
        FixMatchMethod,
        CPSMethod,
        UniMatchMethod,
        STPPMethod,
        BCPMethod,
        AugSegMethod,
        VerSemiMethod,
        VCLIPSegMethod,
        DeepSupervisionMethod,
        MedUniSegStarMethod,
        UniMatchV2Method,
        U2PLMethod,
        DDFPMethod,
        UnivFullMethod,
        CSCPAMethod,
    )
}
