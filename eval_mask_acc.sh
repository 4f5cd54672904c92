# shellcheck shell=bash
# The mask-accuracy protocol as shell functions: the model gets the true masks and names them.
#
#   source eval_mask_acc.sh
#   eval_mask_acc_ade150 CONFIG CHECKPOINT NGPU TAG [KEY VALUE ...]
#
# The functions are those of eval_all.sh with eval_mask_acc_ for eval_. eval_mask_acc_all runs the
# benchmarks with published numbers, eval_mask_acc_mess the 22 of MESS (they need the mess-benchmark
# package) and reports the means of MESS's domains.

# shellcheck source=tools/evaluation_functions.sh
source "$(dirname "${BASH_SOURCE[0]}")/tools/evaluation_functions.sh"

_eval_define eval_mask_acc_ mask_acc

eval_mask_acc_all() { _eval_run mask_acc ade847 ctx459 ade150 ctx59 pc20 cocostuff -- "$@"; }

# shellcheck disable=SC2046  # one word per benchmark
eval_mask_acc_mess() { _eval_run mask_acc $(_eval_names mess_) -- "$@"; }

eval_mask_acc_without_psm() { EVAL_WITHOUT_PSM=1 eval_mask_acc_config "$@"; }
