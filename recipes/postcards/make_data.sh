#!/bin/sh
# Trains the postcard models in runs/, and copies them to data/. Every command resumes a run that was interrupted.
# Options such as --device cuda are passed on to all trainings.
set -eu
cd "$(dirname "$0")/../.."

recipe() {
    module=$1
    shift
    echo "$module $*"
    "${PYTHON:-python}" -m "recipes.postcards.$module" "$@"
}

recipe vae --output runs/vae "$@"
recipe reader --output runs/reader "$@"
recipe diffusion --vae runs/vae/vae --output runs/diffusion "$@"

rm -rf data/postcard
mkdir -p data
cp -r runs/diffusion/pipeline data/postcard
cp runs/reader/reader.safetensors data/
[ -f runs/recommended.json ] || recipe evaluate guidance --recommend runs/recommended.json
cp runs/recommended.json data/postcard/

for style in film neon; do
    recipe reader --style $style --output runs/reader-$style "$@"
    recipe vae --style $style --start data/postcard/vae --output runs/vae-$style \
        --steps 600 --learning-rate 5e-4 --muon-learning-rate 0.01 "$@"
    recipe diffusion --style $style --start data/postcard --vae runs/vae-$style/vae --output runs/$style \
        --pool 12000 --steps 1500 --batch-size 64 --learning-rate 4e-4 "$@"
    recipe evaluate difference --tuned runs/$style/pipeline --output data/postcard-$style
    cp runs/reader-$style/reader.safetensors data/postcard-$style/
done
recipe sheet examples
