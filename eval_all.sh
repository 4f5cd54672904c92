# shellcheck shell=bash
# The published evaluation protocol as shell functions:
#
#   source eval_all.sh
#   eval_ade150 CONFIG CHECKPOINT NGPU TAG [KEY VALUE ...]
#
# One function per line of tools/benchmarks.tsv: eval_ade150, eval_ade847, eval_ctx59, eval_ctx459,
# eval_pc20 (also eval_pas20), eval_pas21, eval_cocostuff, eval_coco133 (also eval_coco),
# eval_cityscapes, eval_mapillary, eval_lvis, eval_shapes, eval_mess_<name>, and eval_config for the
# config's own test set. eval_all runs the five open-vocabulary benchmarks, eval_mess the 22 of MESS.
# Each ends with one table: our numbers, the published ones where there are some, seen and unseen.
#
# Without ADE20K's panoptic or instance annotation, eval_ade150 gives the metrics that do not need it.
# NGPU 0 is the CPU. Files go to output/<config>/<TAG>_<benchmark> in the working directory; results
# that an earlier run left there become previous_results.json. In the environment:
# EVAL_WITHOUT_PSM=1 leaves the alignment out (plain CLIP similarities), EVAL_DRY_RUN=1 prints the
# commands, PYTHON names the interpreter (default: .venv of the repository, or python3),
# MASKCLIPPP_EVALUATION_WORKERS how many threads score images beside the model.

# shellcheck source=tools/evaluation_functions.sh
source "$(dirname "${BASH_SOURCE[0]}")/tools/evaluation_functions.sh"

_eval_define eval_ segmentation

eval_all() { _eval_run segmentation ade150 ade847 ctx459 ctx59 pc20 -- "$@"; }

# shellcheck disable=SC2046  # one word per benchmark
eval_mess() { _eval_run segmentation $(_eval_names mess_) -- "$@"; }

eval_without_psm() { EVAL_WITHOUT_PSM=1 eval_config "$@"; }
