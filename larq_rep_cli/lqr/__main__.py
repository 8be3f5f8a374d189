from larq_rep_cli.lqr import main

if __name__ == "__main__":
    main()
