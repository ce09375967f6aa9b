// Validates manifests against the schemas of Kubernetes, Argo CD, Flux, cert-manager and the Prometheus operator:
//   node manifests.mjs FILE...
// The schemas know values, and the types of the same packages know keys: as an object literal in TypeScript, a manifest
// with a misspelled key does not compile. A kind without a schema here is named.
import { execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseAllDocuments } from "yaml";

const PACKAGES = {
  "argoproj.io": "@kubernetes-models/argo-cd",
  "cert-manager.io": "@kubernetes-models/cert-manager",
  "helm.toolkit.fluxcd.io": "@kubernetes-models/flux-cd",
  "kustomize.toolkit.fluxcd.io": "@kubernetes-models/flux-cd",
  "monitoring.coreos.com": "@kubernetes-models/prometheus-operator",
  "source.toolkit.fluxcd.io": "@kubernetes-models/flux-cd",
};

// The module with the kinds of an API version, if there is one.
async function moduleOf(apiVersion) {
  const module = `${PACKAGES[apiVersion.split("/")[0]] ?? "kubernetes-models"}/${apiVersion}`;
  try {
    return [module, await import(module)];
  } catch {
    return [module, {}];
  }
}

const folder = dirname(fileURLToPath(import.meta.url));
const literals = [];
let failed = false;
let validated = 0;
for (const file of process.argv.slice(2)) {
  for (const document of parseAllDocuments(readFileSync(file, "utf8"))) {
    const manifest = document.toJS();
    if (manifest === null) continue;
    const { apiVersion, kind, metadata } = manifest;
    const name = `${file}: ${kind} ${metadata?.name ?? ""}`;
    const [module, { [kind]: Model }] = await moduleOf(apiVersion);
    if (!Model) {
      console.log(`${name}: no schema of ${apiVersion}`);
      continue;
    }
    try {
      new Model(manifest).validate();
      validated += 1;
    } catch (error) {
      failed = true;
      console.log(`${name}: ${error.message}`);
    }
    const type = `import(${JSON.stringify(module)}).I${kind}`;
    literals.push(`// ${name}\nexport const manifest${literals.length}: ${type} = ${JSON.stringify(manifest, null, 1)};`);
  }
}
const text = join(folder, "manifests.ts");
writeFileSync(text, `${literals.join("\n")}\n`);
const options = ["--noEmit", "--strict", "--skipLibCheck", "--module", "nodenext"];
try {
  execFileSync(process.execPath, [join(folder, "node_modules/typescript/bin/tsc"), ...options, text], { stdio: "inherit" });
} catch {
  failed = true;
}
console.log(`${validated} manifests are valid`);
process.exit(failed ? 1 : 0);
