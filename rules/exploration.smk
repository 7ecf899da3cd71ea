# MD that halts by itself, and the cuts from the frames where it did.


rule run_md:
    input:
        potential=GEN.potential,
        active_set=GEN.active_set,
        labels=[*earlier("labels"), GEN.labels],
    output:
        lammps_input=GEN.walker("{walker}").input,
        log=GEN.walker("{walker}").log,
        dump=GEN.walker("{walker}").dump,
        outcome=GEN.walker("{walker}").outcome,
    log:
        job_log("run_md_{walker}"),
    benchmark:
        job_benchmark("run_md_{walker}")
    conda:
        "../envs/mlip.yaml"
    threads: CONFIG.lammps.threads
    script:
        "../scripts/run_md.py"


rule extract_clusters:
    input:
        potential=GEN.potential,
        active_set=GEN.active_set,
        outcomes=expand(GEN.walker("{walker}").outcome, walker=WALKERS_RUN, allow_missing=True),
        dumps=expand(GEN.walker("{walker}").dump, walker=WALKERS_RUN, allow_missing=True),
    output:
        extracted=GEN.extracted,
        cuts_refused=GEN.cuts_refused,
    log:
        job_log("extract_clusters"),
    benchmark:
        job_benchmark("extract_clusters")
    conda:
        "../envs/mlip.yaml"
    params:
        walkers=WALKERS_RUN,
    script:
        "../scripts/extract_clusters.py"
