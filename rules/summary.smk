# What the driver decides from, and what the user reads: all made from the generations' files, on the login node.


rule summarise_generation:
    input:
        extracted=GEN.extracted,
        cuts_refused=GEN.cuts_refused,
        outcomes=expand(GEN.walker("{walker}").outcome, walker=WALKERS_RUN, allow_missing=True),
        candidates=GEN.candidates,
        selected=GEN.selected,
        records=expand(GEN.shard_record("{shard}"), shard=SHARDS, allow_missing=True),
        labels=GEN.labels,
        metrics=GEN.metrics,
    output:
        summary=GEN.summary,
    log:
        job_log("summarise_generation"),
    localrule: True
    conda:
        "../envs/mlip.yaml"
    params:
        confirmation=RUN.confirmation,
    script:
        "../scripts/summarise_generation.py"


rule build_database:
    input:
        CURRENT.summary,
    output:
        database=PATHS.database,
    log:
        Path("logs") / "build_database.log",
    localrule: True
    conda:
        "../envs/mlip.yaml"
    script:
        "../scripts/build_database.py"


rule plot_generation:
    input:
        GEN.summary,
    output:
        figure=report(
            GEN.figure,
            caption="captions/generation.rst",
            category="Generations",
            labels={"generation": "{gen}", "figure": "MD and fit"},
        ),
    log:
        job_log("plot_generation"),
    localrule: True
    conda:
        "../envs/mlip.yaml"
    script:
        "../scripts/plot_generation.py"


rule build_dashboard:
    input:
        summary=CURRENT.summary,
        # The report shows items of the current DAG only: figures of older generations come in as inputs.
        figures=[
            report(
                PATHS.generation(number).figure,
                caption="captions/generation.rst",
                category="Generations",
                labels={"generation": f"{number:03d}", "figure": "MD and fit"},
            )
            for number in range(RUN.generation)
            if PATHS.generation(number).figure.exists()
        ],
    output:
        dashboard=report(
            PATHS.dashboard,
            caption="captions/dashboard.rst",
            category="Campaign",
            labels={"generation": "all", "figure": "dashboard"},
        ),
    log:
        Path("logs") / "build_dashboard.log",
    localrule: True
    conda:
        "../envs/mlip.yaml"
    script:
        "../scripts/build_dashboard.py"
