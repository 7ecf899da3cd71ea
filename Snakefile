# One generation of a campaign: the current one, or the one that --config generation=N names.
from snakemake.utils import min_version

min_version("9.27")

# --configfile stands alone: laid over the default config, keys that it leaves out would come from there.
if "name" not in config:

    configfile: "config/config.yaml"


include: "rules/common.smk"
include: "rules/candidates.smk"
include: "rules/labels.smk"
include: "rules/training.smk"
include: "rules/exploration.smk"
include: "rules/summary.smk"


report: "rules/captions/campaign.rst"


rule all:
    input:
        CURRENT.summary,
        PATHS.database,
        PATHS.dashboard,
        CURRENT.figure,
    localrule: True
