# shellcheck shell=bash
# What eval_all.sh and eval_mask_acc.sh share: a function for every line of benchmarks.tsv.
# Bash 3.2 and later; works under `set -eu` and from any working directory.

_eval_repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# _eval_lines [NAME]: the benchmarks' lines, or the line of one.
_eval_lines() {
  awk -F '\t' -v name="${1-}" '
    /^#/ { next }
    { split($1, names, ",") }
    name == "" || names[1] == name
  ' "$_eval_repository/tools/benchmarks.tsv"
}

# _eval_names PREFIX: the first names of the benchmarks that begin with PREFIX.
_eval_names() {
  _eval_lines | cut -f 1 | cut -d , -f 1 | grep "^$1"
}

# _eval_define PREFIX PROTOCOL: a function PREFIX<name> for every name of every benchmark.
_eval_define() {
  local names name
  while IFS=$'\t' read -r names _; do
    for name in ${names//,/ }; do
      eval "$1$name() { _eval_run $2 ${names%%,*} -- \"\$@\"; }"
    done
  done < <(_eval_lines)
}

# _eval_run PROTOCOL NAME... -- CONFIG CHECKPOINT NGPU TAG [KEY VALUE ...]
# Evaluate on the named benchmarks one after the other, then print one table. A failure does not
# stop the others; the status says whether there was one, of the table too.
_eval_run() {
  local protocol=$1 names=() failed=() folders=() name status=0
  shift
  while [[ $1 != -- ]]; do
    names+=("$1")
    shift
  done
  shift
  _eval_check "$@" || return 2
  for name in "${names[@]}"; do
    if _eval_benchmark "$protocol" "$name" "$@"; then
      folders+=("$(_eval_folder "$protocol" "$name" "$@")")
    else
      failed+=("$name")
    fi
  done
  if [[ -z ${EVAL_DRY_RUN-} && ${#folders[@]} -gt 0 ]]; then
    "$(_eval_python)" "$_eval_repository/tools/collect_results.py" --comparison "${folders[@]}" ||
      status=1
  fi
  if [[ ${#failed[@]} -gt 0 ]]; then
    echo "failed: ${failed[*]}" >&2
    status=1
  fi
  return $status
}

_eval_check() {
  if [[ $# -lt 4 || $(($# % 2)) -ne 0 || ! ${3-} =~ ^[0-9]+$ ]]; then
    echo "usage: eval_... CONFIG CHECKPOINT NGPU TAG [KEY VALUE ...]" >&2
    echo "  CHECKPOINT may be \"\" (the initial weights), NGPU is a number (0: CPU); found: $*" >&2
    return 2
  fi
  if [[ ! -f $(_eval_file "$1") ]]; then
    echo "there is no config $1, neither here nor in $_eval_repository" >&2
    return 2
  fi
  # train_maskclippp.py takes "default" for today's date; the rest makes no folder of its own.
  if [[ -z $4 || $4 == */* || $4 == default ]]; then
    echo "TAG names the folder of the run: some text without \"/\", not \"default\"; found: '$4'" >&2
    return 2
  fi
}

# A path as given, or relative to the repository if there is nothing of that name here.
_eval_file() {
  if [[ -n $1 && ! -e $1 && -e $_eval_repository/$1 ]]; then
    echo "$_eval_repository/$1"
  else
    echo "$1"
  fi
}

_eval_python() {
  local own=$_eval_repository/.venv/bin/python
  if [[ -n ${PYTHON-} || ! -x $own ]]; then own=${PYTHON:-python3}; fi
  echo "$own"
}

# The tag of a run: the user's, what is special about the run, and the benchmark.
_eval_tag() {
  local tag=$3 # PROTOCOL NAME TAG
  if [[ -n ${EVAL_WITHOUT_PSM-} ]]; then tag+=_without-psm; fi
  if [[ $1 == mask_acc ]]; then tag+=_mask-acc; fi
  if [[ $2 != config ]]; then tag+=_$2; fi
  echo "$tag"
}

# Where a run's files go: the last OUTPUT_DIR among the pairs, or as train_maskclippp.py chooses.
_eval_folder() {
  local protocol=$1 name=$2 config=$3 tag=$6 folder
  shift 6
  folder=output/$(basename "${config%.*}")/$(_eval_tag "$protocol" "$name" "$tag")
  while [[ $# -gt 1 ]]; do
    if [[ $1 == OUTPUT_DIR ]]; then folder=$2; fi
    shift 2
  done
  echo "$folder"
}

# _eval_set_aside FOLDER DATASET,...: rename the results that an earlier run left. If the new one
# fails, they would pass for its own: its config.yaml, with another checkpoint, is there already.
_eval_set_aside() {
  local dataset file
  for dataset in ${2//,/ }; do
    for file in "$1"/inference*/"$dataset"/results.json; do
      if [[ -f $file ]]; then mv -f "$file" "${file%/*}/previous_results.json"; fi
    done
  done
}

# ADE20K without its panoptic or instance JSON is still good for the other metrics: adapt `datasets`
# and `tasks` of the caller, and say what is missing.
_eval_without_missing() {
  local root=${DETECTRON2_DATASETS:-datasets}/ADEChallengeData2016
  if [[ $datasets != openvocab_ade20k_panoptic_val || ! -d $root/annotations_detectron2/validation ]]; then
    return
  fi
  if [[ ! -f $root/ade20k_panoptic_val.json ]]; then
    echo "ade150: only mIoU. PQ and AP need $root/ade20k_panoptic_val.json, which is missing;" \
      "datasets/README.md says how to prepare it." >&2
    datasets=openvocab_ade20k_sem_seg_val # the same images and classes
    tasks=semantic
  elif [[ ! -f $root/ade20k_instance_val.json && $tasks == all ]]; then
    echo "ade150: mIoU and PQ. AP needs $root/ade20k_instance_val.json, which is missing;" \
      "datasets/README.md says how to prepare it." >&2
    tasks=no_instance
  fi
}

# _eval_benchmark PROTOCOL NAME CONFIG CHECKPOINT NGPU TAG [KEY VALUE ...]: one run, or its command
# alone with EVAL_DRY_RUN.
_eval_benchmark() {
  local protocol=$1 name=$2 config=$3 checkpoint=$4 ngpu=$5 tag=$6 folder
  folder=$(_eval_folder "$@")
  shift 6
  local datasets tasks true_masks options
  IFS=$'\t' read -r _ _ datasets tasks true_masks options < <(_eval_lines "$name")
  _eval_without_missing
  local command=("$(_eval_python)" "$_eval_repository/train_maskclippp.py" --eval-only
    --config-file "$(_eval_file "$config")" --num-gpus "$ngpu" --dist-url auto
    --tag "$(_eval_tag "$protocol" "$name" "$tag")"
    MODEL.WEIGHTS "$(_eval_file "$checkpoint")")
  if [[ $datasets != - ]]; then
    local separator="','"
    command+=(DATASETS.TEST "('${datasets//,/$separator}',)")
  fi
  if [[ $protocol == mask_acc ]]; then
    command+=(MODEL.MASKCLIPPP.TEST.MASK_ACC True MODEL.MASKCLIPPP.TEST.ENSEMBLE_ON False
      MODEL.MASKCLIPPP.SEGMENTOR.NAME "$true_masks"
      MODEL.MASKCLIPPP.VISUAL_ENCODER_F.NAME DummyVisualEncoder
      MODEL.MASKCLIPPP.TEXT_ENCODER_F.NAME none)
  fi
  local switches=MODEL.MASK_FORMER.TEST
  case $tasks in
    semantic) command+=($switches.PANOPTIC_ON False $switches.INSTANCE_ON False) ;;
    panoptic) command+=($switches.PANOPTIC_ON True $switches.INSTANCE_ON False) ;;
    instance) command+=($switches.PANOPTIC_ON False $switches.INSTANCE_ON True) ;;
    no_instance) command+=($switches.INSTANCE_ON False) ;;
  esac
  if [[ $options != - ]]; then
    # shellcheck disable=SC2206  # KEY VALUE pairs without blanks
    command+=($options)
  fi
  if [[ -n ${EVAL_WITHOUT_PSM-} ]]; then
    command+=(MODEL.MASKCLIPPP.PSM.NAME DummyPSM MODEL.MASKCLIPPP.USE_LOGIT_SCALE True)
  fi
  command+=("$@")
  if [[ -n ${EVAL_DRY_RUN-} ]]; then
    printf '%q ' "${command[@]}"
    echo
  else
    _eval_set_aside "$folder" "$datasets"
    "${command[@]}"
  fi
}
