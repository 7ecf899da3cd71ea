# Energies and forces, shard by shard.


rule label_structures:
    input:
        selected=GEN.selected,
    output:
        labels=GEN.shard_labels("{shard}"),
        record=GEN.shard_record("{shard}"),
    log:
        job_log("label_structures_{shard}"),
    benchmark:
        job_benchmark("label_structures_{shard}")
    conda:
        "../envs/mlip.yaml"
    threads: CONFIG.dft.threads
    params:
        shards=len(SHARDS),
    script:
        "../scripts/label_structures.py"


rule collect_labels:
    input:
        labels=expand(GEN.shard_labels("{shard}"), shard=SHARDS, allow_missing=True),
        records=expand(GEN.shard_record("{shard}"), shard=SHARDS, allow_missing=True),
        earlier_labels=earlier("labels"),
    output:
        labels=GEN.labels,
        refused=GEN.refused,
    log:
        job_log("collect_labels"),
    localrule: True
    conda:
        "../envs/mlip.yaml"
    script:
        "../scripts/collect_labels.py"
