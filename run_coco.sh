#!/usr/bin/env bash
# Train and test CVF on MS COCO 2014 (COCO_ROOT, default MSCOCO), or on the embedded toy COCO
# without data.
exec bash -- "$(dirname -- "$0")/utils/tools/run.sh" coco "${COCO_ROOT:-}" MSCOCO "$@"
