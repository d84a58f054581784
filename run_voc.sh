#!/usr/bin/env bash
# Train and test CVF on PASCAL VOC 2012 (VOC_ROOT, default VOCdevkit/VOC2012), or on the embedded
# toy VOC without data.
exec bash -- "$(dirname -- "$0")/utils/tools/run.sh" voc "${VOC_ROOT:-}" VOCdevkit/VOC2012 "$@"
